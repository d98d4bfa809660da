//! Search: who is in which file, and when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write};

use super::catalogue::Kind;
use super::database::on_pool;
use super::{Library, LibraryError};
use crate::file::percent_encoded;
use crate::gallery::PersonName;
use crate::report::Span;

/// An absence of at most that long does not end an appearance, as in the reports of a video.
const GAP_NS: u64 = 1_000_000_000;

/// A person to find.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A person with a name.
    Named(String),
    /// A stranger by number.
    Stranger(i64),
}

impl Subject {
    /// The person as the catalogue knows them: names are normalised as in galleries.
    ///
    /// # Errors
    /// [`LibraryError::Request`] for what cannot be a name. An empty one would be everybody without a name.
    pub(super) fn normalised(&self) -> Result<Self, LibraryError> {
        match self {
            Self::Named(name) => match PersonName::new(name) {
                Ok(name) => Ok(Self::Named(name.as_str().to_owned())),
                Err(error) => Err(LibraryError::Request(error.to_string())),
            },
            Self::Stranger(number) => Ok(Self::Stranger(*number)),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Stranger(number) => write!(f, "stranger {number}"),
        }
    }
}

/// A search request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Query {
    /// The people who must all be in a file.
    pub with: Vec<Subject>,
    /// Whether they must be in one picture. The time spans are then those in which all of them are visible.
    pub together: bool,
    /// Files taken at this time or later, in seconds since 1970.
    pub from_s: Option<i64>,
    /// Files taken before this time.
    pub before_s: Option<i64>,
    /// Videos or photos only.
    pub kind: Option<Kind>,
}

impl Query {
    /// Files with all of these people.
    pub fn with(people: impl IntoIterator<Item = Subject>) -> Self {
        Self { with: people.into_iter().collect(), ..Self::default() }
    }
}

/// A person in a file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// The person.
    pub who: Subject,
    /// The time spans; empty in a photo.
    pub spans: Vec<Span>,
    /// The smallest angle to a template in degrees; 0 for a stranger.
    pub angle_deg: f64,
    /// Frames that show the person, over all tracks.
    pub frames: i64,
    /// The track with the most frames.
    pub track: i64,
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FoundFile {
    /// Digest of its content.
    pub content: String,
    /// Its paths; empty if it no longer exists anywhere.
    pub paths: Vec<String>,
    /// Its kind.
    pub kind: Kind,
    /// The time at which it was taken, in seconds since 1970.
    pub taken_s: i64,
    /// Duration of a video in nanoseconds.
    pub duration_ns: u64,
    /// The people requested, in the order of the query.
    pub people: Vec<Found>,
    /// The time spans of all of them. If they must be in one picture, the spans in which they are.
    pub spans: Vec<Span>,
}

/// A person of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersonSummary {
    /// Name.
    pub name: String,
    /// Videos with this person.
    pub videos: i64,
    /// Photos with this person.
    pub photos: i64,
    /// Time in videos, in nanoseconds.
    pub screen_ns: i64,
    /// The time at which the first file with this person was taken, in seconds since 1970.
    pub first_s: i64,
    /// The time at which the last one was taken.
    pub last_s: i64,
}

/// A track of a person.
struct Row {
    track: i64,
    span: Span,
    frames: i64,
    angle_deg: f64,
}

/// A file and its paths.
struct File {
    paths: Vec<String>,
    kind: Kind,
    taken_s: i64,
    duration_ns: u64,
}

impl Library {
    /// The files with all people requested, in the order in which they were taken.
    ///
    /// # Errors
    /// [`LibraryError::NoPerson`] and [`LibraryError::NoStranger`] for a person who is in no file,
    /// [`LibraryError::Request`] for what cannot be a name; when the database fails.
    pub fn find(&self, query: &Query) -> Result<Vec<FoundFile>, LibraryError> {
        let with = query.with.iter().map(Subject::normalised).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = with.first() else { return Ok(Vec::new()) };
        let files = self.files_with(first, query)?;
        let mut people = Vec::new();
        for who in &with {
            let tracks = self.tracks_with(who)?;
            if tracks.is_empty() {
                return Err(match who {
                    Subject::Named(name) => LibraryError::NoPerson(name.clone()),
                    Subject::Stranger(number) => LibraryError::NoStranger(*number),
                });
            }
            people.push((who, tracks));
        }
        let mut found = Vec::new();
        for (content, file) in files {
            let in_it =
                people.iter().map(|(who, tracks)| Some(person(who, tracks.get(&content)?, file.kind)));
            let Some(in_it) = in_it.collect::<Option<Vec<Found>>>() else { continue };
            let spans = match query.together {
                true => in_it.iter().map(|one| one.spans.clone()).reduce(|a, b| overlap(&a, &b)),
                false => Some(union(in_it.iter().flat_map(|one| one.spans.iter().copied()).collect())),
            };
            let spans = spans.unwrap_or_default();
            // In a photo, all people are in one picture.
            if query.together && spans.is_empty() && file.kind == Kind::Video {
                continue;
            }
            let File { paths, kind, taken_s, duration_ns } = file;
            found.push(FoundFile { content, paths, kind, taken_s, duration_ns, people: in_it, spans });
        }
        found.sort_by(|a, b| (a.taken_s, &a.paths, &a.content).cmp(&(b.taken_s, &b.paths, &b.content)));
        Ok(found)
    }

    /// The files with a person that match the other conditions of the query.
    fn files_with(&self, who: &Subject, query: &Query) -> Result<BTreeMap<String, File>, LibraryError> {
        type Row = (String, String, i64, i64, String, i64);
        let (column, name, number) = column(who);
        let kind = query.kind.map_or("", Kind::name);
        let (from_s, before_s) = (query.from_s.unwrap_or(i64::MIN), query.before_s.unwrap_or(i64::MAX));
        let statement = format!(
            "SELECT file.content, kind, taken_s, duration_ns, COALESCE(path, ''), COALESCE(present, 0) FROM file \
             LEFT JOIN place ON place.content = file.content AND place.present = 1 \
             WHERE file.content IN (SELECT content FROM track WHERE {column}) AND ($2 = $2 OR $1 = $1) \
             AND ($3 = '' OR kind = $3) AND taken_s >= $4 AND taken_s < $5 ORDER BY file.content, path"
        );
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as(sqlx::AssertSqlSafe(statement.clone()))
                    .bind(name).bind(number).bind(kind).bind(from_s).bind(before_s).fetch_all(pool).await
            })
        })?;
        let mut files: BTreeMap<String, File> = BTreeMap::new();
        for (content, kind, taken_s, duration_ns, path, present) in rows {
            let duration_ns = u64::try_from(duration_ns).unwrap_or(0);
            let new = || File { paths: Vec::new(), kind: Kind::of(&kind), taken_s, duration_ns };
            let file = files.entry(content).or_insert_with(new);
            if present != 0 {
                file.paths.push(path);
            }
        }
        Ok(files)
    }

    /// The tracks of a person by file.
    fn tracks_with(&self, who: &Subject) -> Result<HashMap<String, Vec<Row>>, LibraryError> {
        type Columns = (String, i64, i64, i64, i64, f64);
        let (column, name, number) = column(who);
        let statement = format!(
            "SELECT content, track, start_ns, end_ns, frames, angle_deg FROM track WHERE {column} AND ($2 = $2 OR $1 = $1)"
        );
        let rows: Vec<Columns> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as(sqlx::AssertSqlSafe(statement.clone())).bind(name).bind(number).fetch_all(pool).await
            })
        })?;
        let mut tracks: HashMap<String, Vec<Row>> = HashMap::new();
        for (content, track, start_ns, end_ns, frames, angle_deg) in rows {
            let time = |ns: i64| u64::try_from(ns).unwrap_or(0);
            let span = Span { start_ns: time(start_ns), end_ns: time(end_ns) };
            tracks.entry(content).or_default().push(Row { track, span, frames, angle_deg });
        }
        Ok(tracks)
    }

    /// The people with a name, those in most files first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn people(&self) -> Result<Vec<PersonSummary>, LibraryError> {
        type Row = (String, i64, i64, i64, i64, i64);
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT name, COUNT(DISTINCT CASE WHEN kind = 'video' THEN track.content END), \
                    COUNT(DISTINCT CASE WHEN kind = 'photo' THEN track.content END), \
                    CAST(COALESCE(SUM(CASE WHEN kind = 'video' THEN end_ns - start_ns END), 0) AS BIGINT), \
                    MIN(taken_s), MAX(taken_s) FROM track JOIN file ON file.content = track.content \
                    WHERE name <> '' GROUP BY name";
                sqlx::query_as(statement).fetch_all(pool).await
            })
        })?;
        let person = |(name, videos, photos, screen_ns, first_s, last_s): Row| PersonSummary {
            name,
            videos,
            photos,
            screen_ns,
            first_s,
            last_s,
        };
        let mut people: Vec<PersonSummary> = rows.into_iter().map(person).collect();
        people.sort_by(|a, b| (b.videos + b.photos).cmp(&(a.videos + a.photos)).then(a.name.cmp(&b.name)));
        Ok(people)
    }
}

/// The condition on a track, and the values bound to $1 and $2.
fn column(who: &Subject) -> (&'static str, &str, i64) {
    match who {
        Subject::Named(name) => ("name = $1", name, 0),
        Subject::Stranger(number) => ("name = '' AND stranger = $2", "", *number),
    }
}

/// A person in a file, of the tracks there.
fn person(who: &Subject, rows: &[Row], kind: Kind) -> Found {
    let spans = match kind {
        Kind::Video => union(rows.iter().map(|row| row.span).collect()),
        Kind::Photo => Vec::new(),
    };
    let longest = rows.iter().max_by_key(|row| (row.frames, std::cmp::Reverse(row.track)));
    Found {
        who: who.clone(),
        spans,
        angle_deg: rows.iter().map(|row| row.angle_deg).fold(f64::INFINITY, f64::min),
        frames: rows.iter().map(|row| row.frames).sum(),
        track: longest.map_or(0, |row| row.track),
    }
}

/// The times in any of `spans`; short gaps count as presence.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.start_ns, span.end_ns));
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start_ns <= last.end_ns.saturating_add(GAP_NS) => {
                last.end_ns = last.end_ns.max(span.end_ns)
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// The times in both.
fn overlap(a: &[Span], b: &[Span]) -> Vec<Span> {
    let both = a.iter().flat_map(|a| {
        b.iter().filter_map(|b| {
            let span = Span { start_ns: a.start_ns.max(b.start_ns), end_ns: a.end_ns.min(b.end_ns) };
            (span.start_ns < span.end_ns).then_some(span)
        })
    });
    both.collect()
}

/// A playlist of the files found, in the extended M3U format. Every time span is an entry; players that know
/// VLC's options play just that.
pub fn playlist(files: &[FoundFile]) -> String {
    let mut text = String::from("#EXTM3U\n");
    for file in files {
        let Some(path) = file.paths.first() else { continue };
        // A line break would begin another entry.
        let title = path.rsplit('/').next().unwrap_or(path).replace(['\n', '\r'], " ");
        let path = match path.contains(['\n', '\r']) {
            true => format!("file://{}", percent_encoded(path)),
            false => path.clone(),
        };
        if file.kind == Kind::Photo {
            let _ = write!(text, "#EXTINF:-1,{title}\n{path}\n");
        }
        for span in &file.spans {
            let (start, end) = (span.start_ns as f64 / 1e9, span.end_ns as f64 / 1e9);
            let _ = writeln!(text, "#EXTINF:{:.0},{title} {span}", (end - start).ceil());
            let _ = writeln!(text, "#EXTVLCOPT:start-time={start:.3}\n#EXTVLCOPT:stop-time={end:.3}\n{path}");
        }
    }
    text
}

/// The people requested, without repeats.
pub(super) fn subjects(files: &[FoundFile]) -> Vec<Subject> {
    let all: BTreeSet<&Subject> =
        files.iter().flat_map(|file| file.people.iter().map(|one| &one.who)).collect();
    all.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn span(start: u64, end: u64) -> Span {
        Span { start_ns: start * S, end_ns: end * S }
    }

    #[test]
    fn times_are_joined_over_short_gaps_and_cut_to_what_is_common() {
        assert_eq!(union(vec![span(5, 7), span(0, 2), span(3, 4), span(1, 2)]), [span(0, 7)]);
        assert_eq!(union(vec![span(5, 7), span(0, 2)]), [span(0, 2), span(5, 7)]);
        assert_eq!(overlap(&[span(0, 4), span(6, 9)], &[span(3, 7)]), [span(3, 4), span(6, 7)]);
        assert!(overlap(&[span(0, 4)], &[span(4, 7)]).is_empty());
    }

    #[test]
    fn a_playlist_plays_the_spans() {
        let file = |kind, paths: &[&str], spans| FoundFile {
            content: "c".into(),
            paths: paths.iter().map(|&path| path.into()).collect(),
            kind,
            taken_s: 0,
            duration_ns: 20 * S,
            people: Vec::new(),
            spans,
        };
        let files = [
            file(Kind::Video, &["/v/a\nb.mp4", "/v/copy.mp4"], vec![span(1, 3), span(8, 9)]),
            file(Kind::Photo, &["/p/c.jpg"], Vec::new()),
            file(Kind::Video, &[], vec![span(1, 3)]),
        ];
        let expected = "#EXTM3U\n#EXTINF:2,a b.mp4 0:01.0-0:03.0\n#EXTVLCOPT:start-time=1.000\n#EXTVLCOPT:stop-time=3.000\n\
                        file:///v/a%0Ab.mp4\n#EXTINF:1,a b.mp4 0:08.0-0:09.0\n#EXTVLCOPT:start-time=8.000\n\
                        #EXTVLCOPT:stop-time=9.000\nfile:///v/a%0Ab.mp4\n#EXTINF:-1,c.jpg\n/p/c.jpg\n";
        assert_eq!(playlist(&files), expected);
    }
}
