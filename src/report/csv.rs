//! Faces and appearances as CSV (RFC 4180, UTF-8, a header line).

use std::path::Path;

use super::{Appearance, FaceRecord, Output, ReportError};
use crate::identify::Who;

/// Columns of [`FaceTable`].
const FACE_COLUMNS: [&str; 38] = [
    "frame",
    "pts_ns",
    "pts_s",
    "track",
    "name",
    "stranger",
    "x1",
    "y1",
    "x2",
    "y2",
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
    "score",
    "size_px",
    "yaw_deg",
    "pitch_deg",
    "roll_deg",
    "sharpness",
    "angle_deg",
    "template",
    "handicap_deg",
    "runner_up",
    "runner_up_angle_deg",
    "ambiguous",
    "rejected",
    "through",
    "views",
    "votes",
    "known",
    "label",
];

/// Writes one row per face and frame: the fields of [`FaceRecord`], with one column per coordinate of points
/// and boxes. A field that does not apply is empty. `ambiguous` is true or false, and `known` (likewise) and
/// `label` (the name, "Unknown 3" or "unknown") come last.
pub struct FaceTable {
    output: Output,
}

impl FaceTable {
    /// A file at `path`, see [`Output::create`].
    ///
    /// # Errors
    /// When no file can be created there.
    pub fn create(path: &Path) -> Result<Self, ReportError> {
        Self::new(Output::create(path)?)
    }

    /// A table written to `output`.
    ///
    /// # Errors
    /// When the header line cannot be written.
    pub fn new(mut output: Output) -> Result<Self, ReportError> {
        output.write(&row(&FACE_COLUMNS.map(str::to_owned)))?;
        Ok(Self { output })
    }

    /// Writes one row.
    ///
    /// # Errors
    /// When the disk is full; when a number is not finite.
    pub fn write(&mut self, face: &FaceRecord<'_>) -> Result<(), ReportError> {
        face.check()?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let mut fields = vec![
            face.frame.to_string(),
            face.pts_ns.to_string(),
            seconds(face.pts_ns),
            number(face.track),
            text(face.name),
            number(face.stranger),
        ];
        fields.extend(face.bbox.iter().chain(face.landmarks.as_flattened()).map(f32::to_string));
        let quality = face.quality;
        let measures = [
            face.score,
            quality.size_px,
            quality.yaw_deg,
            quality.pitch_deg,
            quality.roll_deg,
            quality.sharpness,
        ];
        fields.extend(measures.map(|measure| measure.to_string()));
        fields.extend([
            number(face.angle_deg),
            text(face.template),
            number(face.handicap_deg),
            text(face.runner_up),
            number(face.runner_up_angle_deg),
            face.ambiguous.to_string(),
            text(face.rejected),
            number(face.via_track),
            number(face.views),
            number(face.votes),
            face.name.is_some().to_string(),
            face.label(),
        ]);
        self.output.write(&row(&fields))
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When the rest cannot be written, or the file cannot take its name.
    pub fn finish(self) -> Result<(), ReportError> {
        self.output.finish()
    }
}

/// Writes one row per appearance in the order of time: who (`label`, `known`), from when to when (exact
/// nanoseconds and seconds since the start; the end is that of the last frame).
///
/// # Errors
/// When the file cannot be written.
pub fn write_appearances(mut output: Output, people: &[Appearance]) -> Result<(), ReportError> {
    output.write(&row(&["label", "known", "from_ns", "to_ns", "from_s", "to_s"].map(str::to_owned)))?;
    let mut all: Vec<(u64, &Who, u64)> = Vec::new();
    for Appearance { who, spans, .. } in people {
        all.extend(spans.iter().map(|span| (span.start_ns, who, span.end_ns)));
    }
    all.sort();
    for (start_ns, who, end_ns) in all {
        let known = matches!(who, Who::Named(_)).to_string();
        let times = [start_ns.to_string(), end_ns.to_string(), seconds(start_ns), seconds(end_ns)];
        let fields: Vec<String> = [who.to_string(), known].into_iter().chain(times).collect();
        output.write(&row(&fields))?;
    }
    output.finish()
}

/// Nanoseconds as exact decimal seconds.
fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn number(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A row as defined by RFC 4180.
fn row(fields: &[String]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Writing to memory cannot fail.
    writer.write_record(fields).expect("memory takes every row");
    writer.into_inner().expect("memory takes every row")
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::super::face::tests::face;
    use super::*;

    #[test]
    fn what_was_written_is_read_back_whatever_is_in_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.csv");
        let mut table = FaceTable::create(&path).unwrap();
        let names = [Some("Zoë \"Z\", the\n2nd"), None, None];
        for (frame, name) in names.into_iter().enumerate() {
            let stranger = (frame == 1).then_some(3);
            table.write(&FaceRecord { name, stranger, template: name, ..face(frame as u64) }).unwrap();
        }
        assert!(table.write(&FaceRecord { score: f32::NAN, ..face(9) }).is_err());
        assert!(!path.exists());
        table.finish().unwrap();
        let mut reader = csv::Reader::from_path(&path).unwrap();
        assert_eq!(reader.headers().unwrap(), &FACE_COLUMNS[..]);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        let column = |name: &str| FACE_COLUMNS.iter().position(|column| *column == name).unwrap();
        assert_eq!(&rows[0][column("name")], names[0].unwrap());
        assert_eq!(&rows[1][column("pts_ns")], "40000000");
        assert_eq!(&rows[1][column("pts_s")], "0.040000000");
        assert_eq!(&rows[1][column("x2")], "50.25");
        assert_eq!(&rows[1][column("sharpness")], "0.4");
        let labels: Vec<_> = rows.iter().map(|row| (&row[column("known")], &row[column("label")])).collect();
        assert_eq!(labels, [("true", names[0].unwrap()), ("false", "Unknown 3"), ("false", "unknown")]);
    }

    #[test]
    fn appearances_are_exact_and_in_the_order_of_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("appearances.csv");
        let span = |start_ns, end_ns| Span { start_ns, end_ns };
        let people = [
            Appearance {
                who: Who::Named("Bo, Jr.".into()),
                frames: 3,
                spans: vec![span(33_366_667, 1_000_000_001), span(5_000_000_000, 5_033_366_667)],
            },
            Appearance { who: Who::Stranger(1), frames: 3, spans: vec![span(2_000_000_000, 2_500_000_000)] },
        ];
        write_appearances(Output::create(&path).unwrap(), &people).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.split("\r\n").collect::<Vec<_>>(),
            [
                "label,known,from_ns,to_ns,from_s,to_s",
                "\"Bo, Jr.\",true,33366667,1000000001,0.033366667,1.000000001",
                "Unknown 1,false,2000000000,2500000000,2.000000000,2.500000000",
                "\"Bo, Jr.\",true,5000000000,5033366667,5.000000000,5.033366667",
                "",
            ]
        );
    }
}
