//! The report of a benchmark, as a table or JSON.

use std::fmt;

use serde::Serialize;

/// Peak of a number of threads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Peak {
    /// Threads.
    pub threads: usize,
    /// Multiply-adds in registers, two operations each.
    pub arithmetic_gflops: f64,
    /// Sequential reads.
    pub memory_gb_per_s: f64,
}

/// One measurement: medians over several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The name of the measurement.
    pub what: String,
    /// Threads.
    pub threads: usize,
    /// Faces, squares or frames per run.
    pub batch: usize,
    /// Milliseconds per item.
    pub ms: f64,
    /// Items per second.
    pub per_s: f64,
    /// Operations per second in 1e9, counted as direct convolution: Winograd convolution needs fewer, so that
    /// this can exceed the peak. `None` for other measurements than a network alone.
    pub gflops: Option<f64>,
    /// The same as a share of the peak of the same number of threads.
    pub share_of_peak: Option<f64>,
}

/// All measurements.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Instruction set of the kernels.
    pub isa: String,
    /// Device of the networks.
    pub device: String,
    /// The arithmetic of embeddings.
    pub precision: String,
    /// The peak of the machine.
    pub peak: Vec<Peak>,
    /// Embedding networks, per face.
    pub embedding: Vec<Row>,
    /// R-Net and O-Net, per square.
    pub refinement: Vec<Row>,
    /// P-Net over the pyramid, and the whole detector, per frame.
    pub detection: Vec<Row>,
    /// Whole jobs, per frame.
    pub job: Vec<Row>,
    /// Peak memory of the process in bytes, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// A number with about three digits.
fn short(value: f64) -> String {
    let digits = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

impl Report {
    fn table(f: &mut fmt::Formatter<'_>, rows: &[Row], item: &str) -> fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "\n{:width$}  threads  batch  {:>12}  {:>10}  GFLOP/s  of peak",
            "",
            format!("ms a {item}"),
            format!("{item}s/s")
        )?;
        for Row { what, threads, batch, ms, per_s, gflops, share_of_peak } in rows {
            write!(f, "{what:width$}  {threads:7}  {batch:5}  {:>12}  {:>10}", short(*ms), short(*per_s))?;
            match gflops.zip(*share_of_peak) {
                Some((gflops, share)) => writeln!(f, "  {:>7}  {:>6.0}%", short(gflops), 100.0 * share)?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "networks run on {}; embeddings are computed in {}", self.device, self.precision)?;
        for Peak { threads, arithmetic_gflops, memory_gb_per_s } in &self.peak {
            let plural = if *threads == 1 { "" } else { "s" };
            writeln!(
                f,
                "{threads} thread{plural}: at most {} GFLOP/s, memory {} GB/s",
                short(*arithmetic_gflops),
                short(*memory_gb_per_s)
            )?;
        }
        Self::table(f, &self.embedding, "face")?;
        Self::table(f, &self.refinement, "square")?;
        Self::table(f, &self.detection, "frame")?;
        Self::table(f, &self.job, "frame")?;
        if let Some(bytes) = self.peak_memory_bytes {
            writeln!(f, "\npeak memory {} MiB", bytes >> 20)?;
        }
        write!(
            f,
            "\nGFLOP/s count the multiplications of direct convolution; Winograd convolution needs fewer, so more than 100% is possible"
        )
    }
}
