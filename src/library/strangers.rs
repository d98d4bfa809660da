//! The people of a library without a name: grouped over all files, and named by the user.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::database::{Transaction, on_connection, on_pool};
use super::group::{Component, Tracks, numbers, regroup};
use super::pictures::PictureFace;
use super::told::{self, Key};
use super::{Library, LibraryError, note, put_setting, tracks_changed};
use crate::align;
use crate::engine::Engine;
use crate::gallery::{Examined, GalleryFolder, NewStill, PersonName};

/// Setting: the state of the tracks that were grouped.
const GROUPED: &str = "grouped";
/// Setting: the next number of a stranger.
const NEXT: &str = "next_stranger";
/// The most stills enrolled for a person who is named.
const MOST_STILLS: usize = 5;

/// A person without a name.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Stranger {
    /// The number, which does not change when files are added.
    pub number: i64,
    /// Files that show them.
    pub files: usize,
    /// Time in videos, in nanoseconds.
    pub screen_ns: i64,
    /// Their tracks, those with the most views first.
    pub tracks: Vec<StrangerTrack>,
}

/// A track of a stranger.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StrangerTrack {
    /// Digest of the file.
    pub content: String,
    /// Number of the track in it.
    pub track: i64,
    /// Path of the file.
    pub path: String,
    /// Start in nanoseconds; 0 in a photo.
    pub start_ns: i64,
    /// End in nanoseconds.
    pub end_ns: i64,
    /// Views with an embedding.
    pub views: i64,
}

/// Result of [`Library::name_stranger`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// Tracks that got the name.
    pub tracks: usize,
    /// Stills that were enrolled.
    pub stills: usize,
}

/// A track to group.
struct Loose {
    content: String,
    track: i64,
    start_ns: i64,
    end_ns: i64,
    stranger: i64,
    vector: Vec<f32>,
}

impl Loose {
    /// A value that shows whether the track is unchanged since it was grouped.
    fn mark(&self, same_deg: f64) -> i64 {
        let mut hash = blake3::Hasher::new();
        hash.update(&same_deg.to_le_bytes());
        self.vector.iter().for_each(|x| _ = hash.update(&x.to_le_bytes()));
        let bytes = hash.finalize();
        i64::from_le_bytes(std::array::from_fn(|at| bytes.as_bytes()[at]))
    }
}

/// The previous group of a track.
struct Grouped {
    mark: i64,
    /// Digest of its component.
    component: String,
    /// Its group in the component.
    group: usize,
}

/// The user's statements about pairs of tracks: for each track, the others, and whether they are the same
/// person.
struct Pairs(Vec<Vec<(usize, bool)>>);

impl Pairs {
    fn of(apart: &[(usize, usize)], same: &[(usize, usize)], count: usize) -> Self {
        let mut told = vec![Vec::new(); count];
        let both = [(apart, false), (same, true)];
        for (&(a, b), is_same) in
            both.iter().flat_map(|(list, is_same)| list.iter().map(move |pair| (pair, *is_same)))
        {
            told[a].push((b, is_same));
            told[b].push((a, is_same));
        }
        told.iter_mut().for_each(|list| list.sort_unstable());
        Self(told)
    }
}

/// A digest of everything that the groups of a component depend on.
fn digest(members: &[usize], loose: &[Loose], marks: &[i64], told: &Pairs) -> String {
    let mut hash = blake3::Hasher::new();
    let mut place = HashMap::new();
    for (number, &at) in members.iter().enumerate() {
        place.insert(at, number);
        hash.update(loose[at].content.as_bytes());
        hash.update(&loose[at].track.to_le_bytes());
        hash.update(&marks[at].to_le_bytes());
    }
    for (number, &at) in members.iter().enumerate() {
        for (other, is_same) in &told.0[at] {
            if let Some(other) = place.get(other) {
                hash.update(format!("{number} {other} {is_same}\n").as_bytes());
            }
        }
    }
    hash.finalize().to_hex()[..32].to_owned()
}

impl Library {
    /// Groups the tracks without a name if anything changed, on `threads` threads. Only tracks that new or
    /// changed ones can reach are compared again. Returns whether it did.
    ///
    /// # Errors
    /// When the database fails; [`LibraryError::Request`] for a model without a calibrated angle.
    pub fn group_strangers(&self, engine: &Engine, threads: usize) -> Result<bool, LibraryError> {
        let Some(same_deg) = engine.same_person_deg() else {
            return Err(LibraryError::Request(
                "the model is not calibrated, so strangers cannot be distinguished".into(),
            ));
        };
        self.group_within(same_deg, threads)
    }

    /// The same for tracks that are one person up to an angle of `same_deg` degrees.
    pub(crate) fn group_within(&self, same_deg: f64, threads: usize) -> Result<bool, LibraryError> {
        let state = format!("{} {same_deg}", self.setting("tracks")?.unwrap_or_default());
        if self.setting(GROUPED)?.as_ref() == Some(&state) {
            return Ok(false);
        }
        let loose = self.loose()?;
        let at: HashMap<(&str, i64), usize> =
            loose.iter().enumerate().map(|(at, one)| ((one.content.as_str(), one.track), at)).collect();
        let place = |key: &Key| at.get(&(key.0.as_str(), key.1)).copied();
        let mut apart = together(&loose);
        for (_, sides) in self.told_apart()? {
            let places = |side: usize| sides[side].iter().filter_map(place).collect::<Vec<_>>();
            for a in places(0) {
                apart.extend(places(1).into_iter().filter(|&b| a != b).map(|b| (a.min(b), a.max(b))));
            }
        }
        let mut same = Vec::new();
        for keys in self.told_same()?.values() {
            let places: Vec<usize> = keys.iter().filter_map(place).collect();
            same.extend(places.windows(2).map(|pair| (pair[0], pair[1])));
        }
        let length = loose.first().map_or(1, |one| one.vector.len());
        let vectors: Vec<f32> = loose.iter().flat_map(|one| one.vector.iter().copied()).collect();
        let tracks = Tracks { vectors: &vectors, length, apart: &apart, same: &same };
        let before = self.grouped()?;
        let marks: Vec<i64> = loose.iter().map(|one| one.mark(same_deg)).collect();
        let told = Pairs::of(&apart, &same, loose.len());
        let digest = |members: &[usize]| digest(members, &loose, &marks, &told);
        let mut known: HashMap<&str, u32> = HashMap::new();
        let held: Vec<Option<&Grouped>> = loose
            .iter()
            .zip(&marks)
            .map(|(one, &mark)| {
                before.get(&(one.content.clone(), one.track)).filter(|held| held.mark == mark)
            })
            .collect();
        let components: Vec<Option<u32>> = held
            .iter()
            .map(|held| {
                let next = known.len() as u32;
                held.map(|held| *known.entry(held.component.as_str()).or_insert(next))
            })
            .collect();
        let mut unchanged = |members: &[usize]| {
            let digest = digest(members);
            let group = |&at: &usize| held[at].filter(|held| held.component == digest).map(|held| held.group);
            members.iter().map(group).collect()
        };
        let found = regroup(&tracks, &components, &mut unchanged, same_deg.to_radians().cos(), threads);
        let changed: Vec<(&Component, String)> =
            found.iter().filter(|one| !one.kept).map(|one| (one, digest(&one.members))).collect();
        self.keep_grouped(&loose, &marks, &changed, &before)?;
        self.number_strangers(&loose, &numbers(loose.len(), &found), &state)?;
        Ok(true)
    }

    /// The previous groups of tracks.
    fn grouped(&self) -> Result<HashMap<Key, Grouped>, LibraryError> {
        let rows: Vec<(String, i64, i64, String, i64)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT content, track, mark, component, place FROM grouped").fetch_all(pool).await
            })
        })?;
        let held = rows.into_iter().map(|(content, track, mark, component, group)| {
            ((content, track), Grouped { mark, component, group: usize::try_from(group).unwrap_or(0) })
        });
        Ok(held.collect())
    }

    /// Stores the components that were grouped again, and forgets tracks that are no longer grouped.
    fn keep_grouped(
        &self,
        loose: &[Loose],
        marks: &[i64],
        changed: &[(&Component, String)],
        before: &HashMap<Key, Grouped>,
    ) -> Result<(), LibraryError> {
        let here: HashSet<(&str, i64)> = loose.iter().map(|one| (one.content.as_str(), one.track)).collect();
        let gone = before.keys().filter(|(content, track)| !here.contains(&(content.as_str(), *track)));
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            for (content, track) in gone {
                on_connection!(&mut transaction, c => {
                    sqlx::query("DELETE FROM grouped WHERE content = $1 AND track = $2")
                        .bind(content).bind(track).execute(c).await.map(drop)
                })?;
            }
            for (component, digest) in changed {
                for (&at, &group) in component.members.iter().zip(&component.groups) {
                    on_connection!(&mut transaction, c => {
                        let statement = "INSERT INTO grouped (content, track, mark, component, place) VALUES ($1, $2, $3, $4, $5) \
                                         ON CONFLICT (content, track) DO UPDATE SET mark = $3, component = $4, place = $5";
                        let query = sqlx::query(statement).bind(&loose[at].content).bind(loose[at].track).bind(marks[at]);
                        query.bind(digest).bind(group as i64).execute(c).await.map(drop)
                    })?;
                }
            }
            transaction.commit().await
        })
    }

    /// The tracks without a name that show enough to be compared, in an order that does not depend on when
    /// files were added.
    fn loose(&self) -> Result<Vec<Loose>, LibraryError> {
        type Row = (String, i64, i64, i64, i64, Vec<u8>);
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT track.content, track.track, start_ns, end_ns, stranger, vector FROM track \
                                 JOIN template ON template.content = track.content AND template.track = track.track \
                                 WHERE name = '' AND comparable = 1 ORDER BY track.content, track.track";
                sqlx::query_as(statement).fetch_all(pool).await
            })
        })?;
        let loose = rows.into_iter().map(|(content, track, start_ns, end_ns, stranger, bytes)| Loose {
            content,
            track,
            start_ns,
            end_ns,
            stranger,
            vector: floats(&bytes),
        });
        Ok(loose.collect())
    }

    fn told_same(&self) -> Result<BTreeMap<i64, Vec<Key>>, LibraryError> {
        let rows: Vec<(i64, String, i64)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT number, content, track FROM told WHERE kind = 'same' ORDER BY 1, 2, 3").fetch_all(pool).await
            })
        })?;
        let mut told: BTreeMap<i64, Vec<Key>> = BTreeMap::new();
        for (number, content, track) in rows {
            told.entry(number).or_default().push((content, track));
        }
        Ok(told)
    }

    fn told_apart(&self) -> Result<BTreeMap<i64, [Vec<Key>; 2]>, LibraryError> {
        let rows: Vec<(i64, i64, String, i64)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT number, side, content, track FROM told WHERE kind = 'apart' ORDER BY 1, 2, 3, 4").fetch_all(pool).await
            })
        })?;
        let mut told: BTreeMap<i64, [Vec<Key>; 2]> = BTreeMap::new();
        for (number, side, content, track) in rows {
            told.entry(number).or_default()[usize::from(side != 0)].push((content, track));
        }
        Ok(told)
    }

    /// Stores the groups. A group keeps the number that most of its members had; a new one gets a new number.
    fn number_strangers(&self, loose: &[Loose], groups: &[usize], state: &str) -> Result<(), LibraryError> {
        let count = groups.iter().max().map_or(0, |most| most + 1);
        let mut had: Vec<BTreeMap<i64, usize>> = vec![BTreeMap::new(); count];
        for (one, &group) in loose.iter().zip(groups) {
            if one.stranger > 0 {
                *had[group].entry(one.stranger).or_default() += 1;
            }
        }
        let mut wishes: Vec<(usize, i64, usize)> = had
            .iter()
            .enumerate()
            .flat_map(|(group, had)| had.iter().map(move |(&number, &members)| (members, number, group)))
            .collect();
        wishes.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut numbers = vec![0; count];
        let mut taken = BTreeSet::new();
        for (_, number, group) in wishes {
            if numbers[group] == 0 && taken.insert(number) {
                numbers[group] = number;
            }
        }
        let next = self.setting(NEXT)?.and_then(|text| text.parse().ok()).unwrap_or(1_i64);
        let mut next = next.max(taken.last().map_or(1, |last| last + 1));
        for number in numbers.iter_mut().filter(|number| **number == 0) {
            *number = next;
            next += 1;
        }
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            on_connection!(&mut transaction, c => {
                // A track with a name, or one that is no longer comparable, does not belong to a stranger.
                let statement = "UPDATE track SET stranger = 0 WHERE stranger <> 0 AND (name <> '' OR comparable = 0)";
                sqlx::query(statement).execute(c).await.map(drop)
            })?;
            for (one, &group) in loose.iter().zip(groups) {
                if one.stranger != numbers[group] {
                    on_connection!(&mut transaction, c => {
                        sqlx::query("UPDATE track SET stranger = $3 WHERE content = $1 AND track = $2")
                            .bind(&one.content).bind(one.track).bind(numbers[group]).execute(c).await.map(drop)
                    })?;
                }
            }
            put_setting(&mut transaction, NEXT, &next.to_string()).await?;
            put_setting(&mut transaction, GROUPED, state).await?;
            transaction.commit().await
        })
    }

    /// The strangers, those seen in most files and for the longest time first.
    ///
    /// # Errors
    /// When the database fails.
    pub fn strangers(&self) -> Result<Vec<Stranger>, LibraryError> {
        type Row = (i64, String, i64, i64, i64, i64, String, String);
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT stranger, track.content, track, start_ns, end_ns, views, kind, \
                    COALESCE((SELECT MIN(path) FROM place WHERE place.content = track.content AND present = 1), \
                             (SELECT MIN(path) FROM place WHERE place.content = track.content), '') \
                    FROM track JOIN file ON file.content = track.content WHERE stranger > 0";
                sqlx::query_as(statement).fetch_all(pool).await
            })
        })?;
        let mut strangers: BTreeMap<i64, Stranger> = BTreeMap::new();
        for (number, content, track, start_ns, end_ns, views, kind, path) in rows {
            let one = strangers.entry(number).or_insert(Stranger {
                number,
                files: 0,
                screen_ns: 0,
                tracks: Vec::new(),
            });
            if kind == "video" {
                one.screen_ns += end_ns - start_ns;
            }
            one.tracks.push(StrangerTrack { content, track, path, start_ns, end_ns, views });
        }
        let mut strangers: Vec<Stranger> = strangers.into_values().collect();
        for one in &mut strangers {
            one.files = one.tracks.iter().map(|track| &track.content).collect::<BTreeSet<_>>().len();
            one.tracks
                .sort_by(|a, b| b.views.cmp(&a.views).then(a.path.cmp(&b.path)).then(a.track.cmp(&b.track)));
        }
        strangers.sort_by_key(|one| (std::cmp::Reverse((one.files, one.screen_ns)), one.number));
        Ok(strangers)
    }

    /// The stored picture of a track as JPEG.
    ///
    /// # Errors
    /// When the database fails.
    pub fn picture(&self, content: &str, track: i64) -> Result<Option<Vec<u8>>, LibraryError> {
        let row: Option<(Vec<u8>,)> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT jpeg FROM picture WHERE content = $1 AND track = $2")
                    .bind(content).bind(track).fetch_optional(pool).await
            })
        })?;
        Ok(row.map(|(jpeg,)| jpeg))
    }

    /// The tracks of a stranger.
    fn tracks_of(&self, number: i64) -> Result<Vec<Key>, LibraryError> {
        let rows: Vec<Key> = self.wait(async {
            on_pool!(&self.database, pool => {
                sqlx::query_as("SELECT content, track FROM track WHERE stranger = $1 AND name = '' ORDER BY 1, 2")
                    .bind(number).fetch_all(pool).await
            })
        })?;
        if number <= 0 || rows.is_empty() { Err(LibraryError::NoStranger(number)) } else { Ok(rows) }
    }

    /// Names a stranger: their best pictures are enrolled in the gallery, and all their tracks get the name.
    /// No video is decoded.
    ///
    /// # Errors
    /// As for [`stranger_stills`](Self::stranger_stills) and [`tell_name`](Self::tell_name), and when the
    /// gallery fails.
    pub fn name_stranger(
        &self,
        number: i64,
        name: &PersonName,
        gallery: &Path,
    ) -> Result<Told, LibraryError> {
        let stills = self.stranger_stills(number)?;
        let enrolled = GalleryFolder::create(gallery)?.enroll(name, stills)?;
        Ok(Told { tracks: self.tell_name(number, name)?, stills: enrolled.added })
    }

    /// Gives all tracks of a stranger a name, regardless of the gallery. Returns their number.
    ///
    /// # Errors
    /// When there is no such stranger, or the database fails.
    pub fn tell_name(&self, number: i64, name: &PersonName) -> Result<usize, LibraryError> {
        let keys = self.tracks_of(number)?;
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            for key in &keys {
                told::tell(&mut transaction, key, told::Kind::Name, (0, 0), name.as_str()).await?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("UPDATE track SET name = $3, stranger = 0 WHERE content = $1 AND track = $2")
                        .bind(&key.0).bind(key.1).bind(name.as_str()).execute(c).await.map(drop)
                })?;
            }
            tracks_changed(&mut transaction).await?;
            note(&mut transaction, &format!("stranger {number} was named {name}")).await?;
            transaction.commit().await
        })?;
        Ok(keys.len())
    }

    /// The best pictures of a stranger as stills to enrol: up to five, from different files first.
    ///
    /// # Errors
    /// When there is no such stranger, or no picture of them was stored.
    pub fn stranger_stills(&self, number: i64) -> Result<Vec<NewStill>, LibraryError> {
        self.tracks_of(number)?;
        let stills = self.stills(number)?;
        if stills.is_empty() {
            return Err(LibraryError::Request(format!(
                "no picture of stranger {number} was stored, so they cannot be enrolled: analyse their files again with pictures"
            )));
        }
        Ok(stills)
    }

    fn stills(&self, number: i64) -> Result<Vec<NewStill>, LibraryError> {
        type Row = (String, i64, String, Vec<u8>);
        let rows: Vec<Row> = self.wait(async {
            on_pool!(&self.database, pool => {
                let statement = "SELECT track.content, track.track, face, jpeg FROM track JOIN picture \
                                 ON picture.content = track.content AND picture.track = track.track \
                                 WHERE stranger = $1 ORDER BY views DESC, track.content, track.track LIMIT 200";
                sqlx::query_as(statement).bind(number).fetch_all(pool).await
            })
        })?;
        let mut candidates: Vec<(f32, Row, PictureFace)> = rows
            .into_iter()
            .filter_map(|row| {
                let face: PictureFace = serde_json::from_str(&row.2).ok()?;
                Some((crate::track::weight_inside(&face.face, &face.quality), row, face))
            })
            .collect();
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.0.cmp(&b.1.0)).then(a.1.1.cmp(&b.1.1)));
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        // The best of each file, then the second best of each.
        let mut ranked: Vec<(usize, Row, PictureFace)> = candidates
            .into_iter()
            .map(|(_, row, face)| {
                let rank = seen.entry(row.0.clone()).or_default();
                *rank += 1;
                (*rank, row, face)
            })
            .collect();
        ranked.sort_by_key(|(rank, ..)| *rank);
        let stills = ranked.into_iter().filter_map(|(_, (content, track, _, jpeg), one)| {
            let image = image::load_from_memory(&jpeg).ok()?.into_rgb8();
            let crop = align::align(&image, &one.face.landmarks)?;
            Some(NewStill {
                file_name: format!(
                    "{}-track{track}-frame{}.jpg",
                    &content[..12.min(content.len())],
                    one.frame
                ),
                bytes: jpeg,
                examined: Examined {
                    face: one.face,
                    quality: one.quality,
                    faces: vec![one.face],
                    number: 1,
                    crop,
                    already_aligned: false,
                },
            })
        });
        Ok(stills.take(MOST_STILLS).collect())
    }

    /// Merges strangers who are one person, under the number of the first. Later groupings keep this.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn merge_strangers(&self, numbers: &[i64]) -> Result<(), LibraryError> {
        let [first, rest @ ..] = numbers else { return Ok(()) };
        let mut all = self.tracks_of(*first)?;
        for number in rest {
            all.extend(self.tracks_of(*number)?);
        }
        // Earlier statements that tracks of the merged person are different people are removed.
        let mut taken_back = Vec::new();
        for (number, sides) in self.told_apart()? {
            let both = sides.iter().all(|side| side.iter().any(|key| all.contains(key)));
            let keys = sides.into_iter().flatten().filter(|key| both && all.contains(key));
            taken_back.extend(keys.map(|key| (number, key)));
        }
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            let told = told::next_number(&mut transaction, told::Kind::Same).await?;
            for key in &all {
                told::tell(&mut transaction, key, told::Kind::Same, (told, 0), "").await?;
                set_stranger(&mut transaction, key, *first).await?;
            }
            for (number, key) in &taken_back {
                told::take_back(&mut transaction, key, told::Kind::Apart, *number).await?;
            }
            tracks_changed(&mut transaction).await?;
            note(&mut transaction, &format!("strangers {numbers:?} were merged")).await?;
            transaction.commit().await
        })
    }

    /// Splits off tracks of a stranger that are another person. Returns the number of the new stranger. Later
    /// groupings keep them separate.
    ///
    /// # Errors
    /// When there is no such stranger, or `leaving` has none or all of their tracks.
    pub fn split_stranger(&self, number: i64, leaving: &[(String, i64)]) -> Result<i64, LibraryError> {
        let all = self.tracks_of(number)?;
        let (leave, stay): (Vec<Key>, Vec<Key>) = all.into_iter().partition(|key| leaving.contains(key));
        if leave.is_empty() || stay.is_empty() {
            let reason = format!("choose some but not all tracks of stranger {number} for the other person");
            return Err(LibraryError::Request(reason));
        }
        let next = self.setting(NEXT)?.and_then(|text| text.parse().ok()).unwrap_or(number + 1);
        let mut taken_back = Vec::new();
        for (number, keys) in self.told_same()? {
            if keys.iter().any(|key| stay.contains(key)) {
                taken_back
                    .extend(keys.into_iter().filter(|key| leave.contains(key)).map(|key| (number, key)));
            }
        }
        self.wait(async {
            let mut transaction = self.database.begin().await?;
            let told = told::next_number(&mut transaction, told::Kind::Apart).await?;
            for (side, keys) in [(0, &stay), (1, &leave)] {
                for key in keys {
                    told::tell(&mut transaction, key, told::Kind::Apart, (told, side), "").await?;
                }
            }
            for (number, key) in &taken_back {
                told::take_back(&mut transaction, key, told::Kind::Same, *number).await?;
            }
            for key in &leave {
                set_stranger(&mut transaction, key, next).await?;
            }
            put_setting(&mut transaction, NEXT, &(next + 1).to_string()).await?;
            tracks_changed(&mut transaction).await?;
            note(
                &mut transaction,
                &format!("stranger {number} was split: {} tracks are stranger {next}", leave.len()),
            )
            .await?;
            transaction.commit().await
        })?;
        Ok(next)
    }
}

async fn set_stranger(
    transaction: &mut Transaction,
    (content, track): &Key,
    number: i64,
) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        sqlx::query("UPDATE track SET stranger = $3 WHERE content = $1 AND track = $2")
            .bind(content).bind(*track).bind(number).execute(c).await.map(drop)
    })
}

/// Pairs of tracks that are in one picture, so two people. The tracks of a file are consecutive.
fn together(loose: &[Loose]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let mut start = 0;
    while start < loose.len() {
        let end = start + loose[start..].iter().take_while(|one| one.content == loose[start].content).count();
        let mut order: Vec<usize> = (start..end).collect();
        order.sort_by_key(|&at| loose[at].start_ns);
        for (at, &a) in order.iter().enumerate() {
            let later = order[at + 1..].iter().take_while(|&&b| loose[b].start_ns < loose[a].end_ns);
            pairs.extend(later.map(|&b| (a.min(b), a.max(b))));
        }
        start = end;
    }
    pairs
}

/// Numbers as they are stored: little-endian.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
