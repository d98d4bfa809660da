//! The analysis on disk.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{DataType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::column::column as column_of;
use super::{Analysis, AnalysisError, Video};
use crate::detect::{BBox, DetectorConfig, Face, Quality};
use crate::embed::Embedding;
use crate::models::ModelId;
use crate::nn::Arithmetic;
use crate::track::{Observation, TrackId};

/// Key of the facts in the file's metadata.
const KEY: &str = "sphereface";
/// Incremented when the columns or the facts change in a way that older programs would misread.
const VERSION: u32 = 1;
/// Rows written or read at once.
const GROUP_ROWS: usize = 1 << 16;
/// Bytes at both ends of a video that identify it.
const FINGERPRINT_BYTES: u64 = 1 << 20;

const WHOLE: [&str; 3] = ["frame", "pts_ns", "duration_ns"];
const REAL: [&str; 20] = [
    "x1",
    "y1",
    "x2",
    "y2",
    "score",
    "left_eye_x",
    "left_eye_y",
    "right_eye_x",
    "right_eye_y",
    "nose_x",
    "nose_y",
    "left_mouth_x",
    "left_mouth_y",
    "right_mouth_x",
    "right_mouth_y",
    "size_px",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "sharpness",
];

/// The content of the metadata.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    version: u32,
    rows: u64,
    video: Video,
    model: Option<String>,
    /// The arithmetic of the embeddings. Programs that computed only in f32 did not write it.
    #[serde(default = "f32_name")]
    precision: String,
    mirror: bool,
    min_face: String,
    factor: f32,
    scores: [f32; 3],
    cuts: Vec<u64>,
}

fn f32_name() -> String {
    Arithmetic::F32.to_string()
}

fn schema() -> String {
    let mut text = String::from("message sphereface {\n");
    WHOLE.iter().for_each(|name| text += &format!("required int64 {name};\n"));
    text += "required int32 track;\n";
    REAL.iter().for_each(|name| text += &format!("required float {name};\n"));
    text + "optional group embedding (LIST) { repeated group list { required float element; } }\n}"
}

fn reals(observation: &Observation) -> [f32; 20] {
    let Observation { face: Face { bbox, score, landmarks }, quality, .. } = observation;
    let [a, b, c, d, e] = landmarks;
    let Quality { size_px, yaw_deg, pitch_deg, roll_deg, sharpness } = *quality;
    [
        bbox.x1, bbox.y1, bbox.x2, bbox.y2, *score, a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1], e[0],
        e[1], size_px, yaw_deg, pitch_deg, roll_deg, sharpness,
    ]
}

/// A digest of the length, the first and the last mebibyte of a file, in hexadecimal digits.
///
/// # Errors
/// When the file cannot be read.
pub fn fingerprint(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = blake3::Hasher::new();
    hash.update(&length.to_le_bytes());
    for start in [0, length.saturating_sub(FINGERPRINT_BYTES)] {
        file.seek(SeekFrom::Start(start))?;
        let mut part = Vec::new();
        file.by_ref().take(FINGERPRINT_BYTES).read_to_end(&mut part)?;
        hash.update(&part);
    }
    Ok(hash.finalize().to_hex()[..32].to_owned())
}

impl Analysis {
    /// Writes the file, under a temporary name until it is complete.
    ///
    /// Columns: `frame`, `pts_ns`, `duration_ns` (integers); `track`; the box `x1`, `y1`, `x2`, `y2` in
    /// pixels; `score`; the landmarks `left_eye_x` ... `right_mouth_y` in pixels, left and right as the
    /// viewer sees them; the quality `size_px`, `yaw_deg`, `pitch_deg`, `roll_deg`, `sharpness`; and
    /// `embedding`, a list of numbers of unit length or null.
    ///
    /// # Errors
    /// [`AnalysisError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), AnalysisError> {
        let failed = |source: io::Error| AnalysisError::Write { path: path.to_owned(), source };
        let content = |file: &mut File| self.encode(BufWriter::new(file)).map_err(io_error);
        crate::file::write_with(path, content).map_err(failed)
    }

    fn encode(&self, to: impl io::Write + Send) -> Result<(), ParquetError> {
        let facts = Facts {
            version: VERSION,
            rows: self.observations.len() as u64,
            video: self.video.clone(),
            model: self.model.map(|model| model.to_string()),
            precision: self.arithmetic.to_string(),
            mirror: self.mirror,
            min_face: self.detector.min_face.to_string(),
            factor: self.detector.factor,
            scores: self.detector.thresholds,
            cuts: self.cuts.clone(),
        };
        let facts =
            serde_json::to_string(&facts).map_err(|error| ParquetError::General(error.to_string()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // Floating-point values rarely repeat.
            .set_dictionary_enabled(false)
            .set_column_dictionary_enabled(ColumnPath::from("track"), true)
            .set_key_value_metadata(Some(vec![KeyValue::new(KEY.to_owned(), facts)]))
            .build();
        let schema = Arc::new(parse_message_type(&schema())?);
        let mut writer = SerializedFileWriter::new(to, schema, Arc::new(properties))?;
        for rows in self.observations.chunks(GROUP_ROWS) {
            let mut group = writer.next_row_group()?;
            let whole =
                |of: fn(&Observation) -> u64| rows.iter().map(|row| of(row) as i64).collect::<Vec<_>>();
            for column in [whole(|row| row.frame), whole(|row| row.pts_ns), whole(|row| row.duration_ns)] {
                put::<Int64Type, _>(&mut group, &column, None)?;
            }
            let tracks: Vec<i32> = rows.iter().map(|row| row.track.0 as i32).collect();
            put::<Int32Type, _>(&mut group, &tracks, None)?;
            let table: Vec<[f32; 20]> = rows.iter().map(reals).collect();
            for column in 0..REAL.len() {
                let values: Vec<f32> = table.iter().map(|row| row[column]).collect();
                put::<FloatType, _>(&mut group, &values, None)?;
            }
            let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows {
                let vector = row.embedding.as_ref().map_or(&[][..], Embedding::as_slice);
                if vector.is_empty() {
                    definitions.push(0);
                    repetitions.push(0);
                }
                for (place, &x) in vector.iter().enumerate() {
                    values.push(x);
                    definitions.push(2);
                    repetitions.push(i16::from(place > 0));
                }
            }
            put::<FloatType, _>(&mut group, &values, Some((&definitions, &repetitions)))?;
            group.close()?;
        }
        writer.close()?;
        Ok(())
    }

    /// Reads a file that [`Analysis::write`] wrote.
    ///
    /// # Errors
    /// [`AnalysisError::Read`] when the file cannot be read; [`AnalysisError::Damaged`] when it is not an
    /// analysis, is truncated, or holds invalid values.
    pub fn read(path: &Path) -> Result<Self, AnalysisError> {
        let file =
            File::open(path).map_err(|source| AnalysisError::Read { path: path.to_owned(), source })?;
        if path.is_dir() {
            let source = io::Error::new(io::ErrorKind::IsADirectory, "it is a folder");
            return Err(AnalysisError::Read { path: path.to_owned(), source });
        }
        decode(file).map_err(|cause| AnalysisError::Damaged { path: path.to_owned(), cause })
    }
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// Writes the next column of a row group; `levels` are definition and repetition levels.
fn put<T: DataType, W: io::Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<(), ParquetError> {
    let column = group.next_column()?;
    let mut column = column.ok_or_else(|| ParquetError::General("the schema has too few columns".into()))?;
    let (definitions, repetitions) = levels.unzip();
    column.typed::<T>().write_batch(values, definitions, repetitions)?;
    column.close()
}

/// A column without levels.
fn take<T: DataType>(group: &dyn RowGroupReader, column: usize, rows: usize) -> Result<Vec<T::T>, String> {
    let mut reader = column_of::<T>(group, column).map_err(|error| error.to_string())?;
    let mut values = Vec::with_capacity(rows.min(GROUP_ROWS));
    reader.read_records(rows, None, None, &mut values).map_err(|error| error.to_string())?;
    if values.len() == rows { Ok(values) } else { Err("a column is too short".into()) }
}

/// The column of embeddings.
fn take_vectors(group: &dyn RowGroupReader, column: usize, rows: usize) -> Result<Vec<Vec<f32>>, String> {
    let mut reader = column_of::<FloatType>(group, column).map_err(|error| error.to_string())?;
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let more =
            reader.read_records(rows - read, Some(&mut definitions), Some(&mut repetitions), &mut values);
        match more.map_err(|error| error.to_string())? {
            (0, ..) => return Err("a column is too short".into()),
            (records, ..) => read += records,
        }
    }
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(rows.min(GROUP_ROWS));
    let mut values = values.into_iter();
    for (&definition, &repetition) in definitions.iter().zip(&repetitions) {
        if repetition == 0 {
            vectors.push(Vec::new());
        }
        if definition == 2
            && let (Some(vector), Some(value)) = (vectors.last_mut(), values.next())
        {
            vector.push(value);
        }
    }
    if vectors.len() == rows { Ok(vectors) } else { Err("a column is too short".into()) }
}

pub(super) fn decode(file: File) -> Result<Analysis, String> {
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let metadata = reader.metadata().file_metadata();
    let entry = metadata.key_value_metadata().and_then(|all| all.iter().find(|entry| entry.key == KEY));
    let facts = entry.and_then(|entry| entry.value.as_ref()).ok_or("it was not written by sphereface")?;
    let version =
        serde_json::from_str::<serde_json::Value>(facts).ok().and_then(|all| all["version"].as_u64());
    if version.is_some_and(|version| version > u64::from(VERSION)) {
        return Err("it was written by a newer program".into());
    }
    let facts: Facts = serde_json::from_str(facts).map_err(|error| error.to_string())?;
    // Readers of a column panic on a type they do not expect.
    let expected = parse_message_type(&schema()).map_err(|error| error.to_string())?;
    if metadata.schema() != &expected {
        return Err("its columns are not those of an analysis".into());
    }
    let model: Option<ModelId> = match &facts.model {
        Some(text) => Some(text.parse().map_err(|()| "its model has no identifier".to_owned())?),
        None => None,
    };
    let detector = DetectorConfig {
        min_face: facts.min_face.parse().map_err(|error| format!("{error}"))?,
        factor: facts.factor,
        thresholds: facts.scores,
    };
    let mut observations: Vec<Observation> = Vec::new();
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number).map_err(|error| error.to_string())?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(|error| error.to_string())?;
        let whole: Vec<Vec<i64>> =
            (0..3).map(|column| take::<Int64Type>(&*group, column, rows)).collect::<Result<_, _>>()?;
        let tracks = take::<Int32Type>(&*group, 3, rows)?;
        let real: Vec<Vec<f32>> =
            (4..24).map(|column| take::<FloatType>(&*group, column, rows)).collect::<Result<_, _>>()?;
        let vectors = take_vectors(&*group, 24, rows)?;
        for (row, vector) in vectors.into_iter().enumerate() {
            let whole = |column: usize| {
                u64::try_from(whole[column][row]).map_err(|_| "a number in it is negative".to_owned())
            };
            let real: [f32; 20] = std::array::from_fn(|column| real[column][row]);
            let before = observations.last().map_or(0, |last| last.frame);
            let (frame, track) = (whole(0)?, u32::try_from(tracks[row]).unwrap_or(0));
            if !real.iter().all(|x| x.is_finite()) || frame < before || track == 0 {
                return Err("a number in it is out of range".into());
            }
            let embedding = match (vector.is_empty(), model) {
                (true, _) => None,
                (false, None) => return Err("it has embeddings but no model".into()),
                (false, Some(model)) => {
                    // They were normalised when they were made and are used unchanged, so that reading
                    // returns what was written.
                    Some(
                        Embedding::from_unit(model, vector)
                            .ok_or("an embedding in it is not a unit vector")?,
                    )
                }
            };
            observations.push(Observation {
                frame,
                pts_ns: whole(1)?,
                duration_ns: whole(2)?,
                face: Face {
                    bbox: BBox { x1: real[0], y1: real[1], x2: real[2], y2: real[3] },
                    score: real[4],
                    landmarks: std::array::from_fn(|i| [real[5 + 2 * i], real[6 + 2 * i]]),
                },
                quality: Quality {
                    size_px: real[15],
                    yaw_deg: real[16],
                    pitch_deg: real[17],
                    roll_deg: real[18],
                    sharpness: real[19],
                },
                embedding,
                track: TrackId(track),
            });
        }
    }
    if observations.len() as u64 != facts.rows {
        return Err(format!("it has {} faces of {}", observations.len(), facts.rows));
    }
    let lengths = observations.iter().filter_map(|one| Some(one.embedding.as_ref()?.as_slice().len()));
    if lengths.clone().min() != lengths.max() {
        return Err("its embeddings differ in length".into());
    }
    let arithmetic = facts.precision.parse().map_err(|error| format!("{error}"))?;
    let Facts { video, mirror, cuts, .. } = facts;
    Ok(Analysis { video, model, arithmetic, mirror, detector, cuts, observations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    /// Four faces, two of them embedded.
    fn analysis() -> Analysis {
        let model = ModelId([7; 8]);
        let seen = |number: u64| Observation {
            frame: number,
            pts_ns: number * 40_000_000,
            duration_ns: 40_000_000,
            face: Face {
                bbox: BBox { x1: 1.0, y1: 2.0, x2: 30.0 + number as f32, y2: 40.0 },
                score: 0.99,
                landmarks: [[3.0, 4.0]; 5],
            },
            quality: Quality { size_px: 30.0, yaw_deg: 1.0, pitch_deg: 2.0, roll_deg: 3.0, sharpness: 0.2 },
            embedding: number.is_multiple_of(2).then(|| Embedding::new(model, vec![0.5; 32]).unwrap()),
            track: TrackId(1),
        };
        Analysis {
            video: Video {
                name: "clip.mp4".into(),
                width: 64,
                height: 48,
                fps: Some((25, 1)),
                frames: 4,
                duration_ns: 160_000_000,
                fingerprint: String::new(),
                sampled_fps: None,
                key_frames: false,
            },
            model: Some(model),
            arithmetic: Arithmetic::Bf16,
            mirror: false,
            detector: DetectorConfig::default(),
            cuts: vec![2],
            observations: (0..4).map(seen).collect(),
        }
    }

    #[test]
    fn analyses_of_any_bytes_are_survived() {
        let mut whole = Vec::new();
        analysis().encode(&mut whole).unwrap();
        assert_eq!(decode(crate::file::unnamed(&whole)), Ok(analysis()));
        mutations::survived_by("analysis", "four-faces.parquet", &whole, 4000);
    }

    #[test]
    fn facts_of_files_written_before_mean_f32() {
        let now = r#"{"version":1,"rows":0,"video":{"name":"","width":1,"height":1,"fps":null,"frames":0,"duration_ns":0,
            "fingerprint":""},"model":null,"precision":"bf16","mirror":false,"min_face":"40px","factor":0.7,
            "scores":[0.6,0.7,0.7],"cuts":[]}"#;
        let precision = |text: &str| serde_json::from_str::<Facts>(text).unwrap().precision;
        assert_eq!(precision(now), "bf16");
        assert_eq!(precision(&now.replace(r#""precision":"bf16","#, "")), "f32");
    }
}
