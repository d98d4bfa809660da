//! Export of the whole catalogue for other programs: who is in which file, and when.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::database::on_pool;
use super::{Library, LibraryError};
use crate::file;

/// Formats of [`Library::export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object per line.
    JsonLines,
    /// Comma-separated values with a header.
    Csv,
}

impl ExportFormat {
    /// The format for the extension of a file name.
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// A track with its file.
#[derive(Debug)]
struct Row {
    path: String,
    content: String,
    kind: String,
    taken_s: i64,
    track: i64,
    start_ns: i64,
    end_ns: i64,
    frames: i64,
    name: String,
    stranger: i64,
    angle_deg: f64,
}

impl Row {
    /// The track, in a copy of its file.
    fn json(&self, path: &str) -> serde_json::Value {
        let photo = self.kind == "photo";
        let seconds = |ns: i64| (!photo).then_some(ns as f64 / 1e9);
        json!({
            "path": path, "content": self.content, "kind": self.kind, "taken": date(self.taken_s),
            "track": self.track, "start_s": seconds(self.start_ns), "end_s": seconds(self.end_ns),
            "frames": self.frames, "name": Some(&self.name).filter(|name| !name.is_empty()),
            "stranger": Some(self.stranger).filter(|number| *number > 0), "angle_deg": self.angle_deg,
        })
    }
}

const COLUMNS: [&str; 11] = [
    "path",
    "content",
    "kind",
    "taken",
    "track",
    "start_s",
    "end_s",
    "frames",
    "name",
    "stranger",
    "angle_deg",
];

/// A time in seconds since 1970 as `2019-07-14T12:30:05`.
pub fn date(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0);
    time.map_or_else(String::new, |time| time.format("%Y-%m-%dT%H:%M:%S").to_string())
}

impl Library {
    /// Writes every track with its file, in the order of paths. A file with several paths is listed under the
    /// first.
    ///
    /// # Errors
    /// When the database or the writer fails.
    pub fn export(&self, format: ExportFormat, to: &mut dyn Write) -> Result<usize, LibraryError> {
        let rows = self.rows()?;
        let written = match format {
            ExportFormat::JsonLines => {
                rows.iter().try_for_each(|row| writeln!(to, "{}", row.json(&row.path)))
            }
            ExportFormat::Csv => csv(&rows, to),
        };
        let out = || PathBuf::from("the export");
        written.and_then(|()| to.flush()).map_err(|source| LibraryError::Write { path: out(), source })?;
        Ok(rows.len())
    }

    /// Writes a file beside each video and photo that lists who is in it: `clip.mp4.faces.json`. Returns how
    /// many. Of copies, the first has one. A list that is there already beside another, or beside a file without faces,
    /// is brought up to date, because it may name people who were forgotten since.
    ///
    /// # Errors
    /// When one cannot be written, or the database fails.
    pub fn export_sidecars(&self) -> Result<usize, LibraryError> {
        let rows = self.rows()?;
        let tracks: BTreeMap<&str, &[Row]> = rows
            .chunk_by(|a, b| a.content == b.content)
            .map(|group| (group[0].content.as_str(), group))
            .collect();
        let mut count = 0;
        for (place, content) in self.present_places()? {
            let group = tracks.get(content.as_str()).copied().unwrap_or_default();
            let path = PathBuf::from(format!("{place}.faces.json"));
            if group.first().is_none_or(|row| row.path != place) && !path.is_file() {
                continue;
            }
            let list: Vec<_> = group.iter().map(|row| row.json(&place)).collect();
            let text = format!("{:#}\n", json!({ "tracks": list }));
            file::write(&path, text.as_bytes()).map_err(|source| LibraryError::Write { path, source })?;
            count += 1;
        }
        Ok(count)
    }

    /// The paths at which files are now, with the digests of the files.
    fn present_places(&self) -> Result<Vec<(String, String)>, LibraryError> {
        self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT path, content FROM place WHERE present = 1 ORDER BY path";
                sqlx::query_as(statement).fetch_all(pool).await
            })
        })
    }

    fn rows(&self) -> Result<Vec<Row>, LibraryError> {
        type Columns = (String, String, String, i64, i64, i64, i64, i64, String, i64, f64);
        let rows: Vec<Columns> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT COALESCE((SELECT MIN(path) FROM place WHERE place.content = track.content AND present = 1), ''), \
                    track.content, kind, taken_s, track, start_ns, end_ns, track.frames, name, stranger, angle_deg \
                    FROM track JOIN file ON file.content = track.content ORDER BY 1, 2, 5";
                sqlx::query_as(statement).fetch_all(pool).await
            })
        })?;
        let row = |(
            path,
            content,
            kind,
            taken_s,
            track,
            start_ns,
            end_ns,
            frames,
            name,
            stranger,
            angle_deg,
        ): Columns| {
            Row { path, content, kind, taken_s, track, start_ns, end_ns, frames, name, stranger, angle_deg }
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

fn csv(rows: &[Row], to: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(COLUMNS)?;
    for row in rows {
        let photo = row.kind == "photo";
        let seconds = |ns: i64| if photo { String::new() } else { format!("{}", ns as f64 / 1e9) };
        let stranger = if row.stranger > 0 { row.stranger.to_string() } else { String::new() };
        writer.write_record([
            &row.path,
            &row.content,
            &row.kind,
            &date(row.taken_s),
            &row.track.to_string(),
            &seconds(row.start_ns),
            &seconds(row.end_ns),
            &row.frames.to_string(),
            &row.name,
            &stranger,
            &row.angle_deg.to_string(),
        ])?;
    }
    writer.flush()
}
