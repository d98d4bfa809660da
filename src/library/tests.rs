//! Tests on synthetic tracks, which need no network.

use std::path::{Path, PathBuf};

use super::database::{Transaction, on_connection};
use super::*;
use crate::detect::{BBox, Face, Quality};
use crate::nn::Arithmetic;

/// A library in a temporary folder.
struct Made {
    _folder: tempfile::TempDir,
    library: Library,
    files: PathBuf,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        fs::create_dir(&files).unwrap();
        let files = files.canonicalize().unwrap();
        let library = Library::create(&folder.path().join("library")).unwrap();
        Self { _folder: folder, library, files }
    }

    /// A photo of other content than any before.
    fn photo(&self, name: &str) -> PathBuf {
        let path = self.files.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0];
        bytes.extend(name.as_bytes());
        fs::write(&path, bytes).unwrap();
        path
    }

    fn add(&self) -> Added {
        self.library.add(std::slice::from_ref(&self.files), 0, &mut |_| {}).unwrap()
    }

    fn run(&self, statement: &'static str) {
        self.library
            .wait(async {
                let mut transaction = self.library.database.begin().await?;
                on_connection!(&mut transaction, c => sqlx::query(statement).execute(c).await.map(drop))?;
                transaction.commit().await
            })
            .unwrap();
    }

    /// A track of a file that counts as done, seen in a direction of 8.
    fn track(
        &self,
        content: &str,
        track: i64,
        (start_s, end_s): (i64, i64),
        name: &str,
        direction: usize,
        jitter: f32,
    ) {
        let mut vector = vec![0.0_f32; 8];
        vector[direction] = 1.0;
        vector[(direction + 1) % 8] = jitter;
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
        let bytes = work::bytes(&vector);
        let face = pictures::PictureFace {
            face: Face {
                bbox: BBox { x1: 40.0, y1: 30.0, x2: 136.0, y2: 142.0 },
                score: 0.99,
                landmarks: crate::align::TEMPLATE.map(|[x, y]| [x + 40.0, y + 30.0]),
            },
            quality: Quality { size_px: 100.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 },
            frame: 3,
        };
        let face = serde_json::to_string(&face).unwrap();
        let mut jpeg = std::io::Cursor::new(Vec::new());
        let seed = blake3::hash(format!("{content}{track}").as_bytes()).as_bytes()[0];
        let picture =
            image::RgbImage::from_fn(180, 180, |x, y| image::Rgb([(x * 3) as u8, (y * 2) as u8, seed]));
        picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
        let jpeg = jpeg.into_inner();
        let s = 1_000_000_000;
        self.library
            .wait(async {
                let mut transaction = self.library.database.begin().await?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("INSERT INTO track VALUES ($1, $2, $3, $4, 10, 3, 5, 1, $5, 50.0, 0, 40, 30, 136, 142)")
                        .bind(content).bind(track).bind(start_s * s).bind(end_s * s).bind(name).execute(c).await.map(drop)
                })?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("INSERT INTO template VALUES ($1, $2, $3)").bind(content).bind(track).bind(bytes.as_slice())
                        .execute(c).await.map(drop)
                })?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("INSERT INTO picture VALUES ($1, $2, $3, $4)").bind(content).bind(track).bind(face.as_str())
                        .bind(jpeg.as_slice()).execute(c).await.map(drop)
                })?;
                tracks_changed(&mut transaction).await?;
                transaction.commit().await
            })
            .unwrap();
    }

    /// A video that counts as done.
    fn video(&self, content: &str, path: &str, taken_s: i64) {
        self.library
            .wait(async {
                let mut transaction = self.library.database.begin().await?;
                on_connection!(&mut transaction, c => {
                    sqlx::query("INSERT INTO file VALUES ($1, 9, 'video', $2, 'done', '', 0, 0, 0, 0, 0, 20000000000, 0, 0, '', '')")
                        .bind(content).bind(taken_s).execute(c).await.map(drop)
                })?;
                put_place(&mut transaction, path, content).await?;
                transaction.commit().await
            })
            .unwrap();
    }

    fn engine() -> crate::engine::Engine {
        crate::engine::Engine::new().unwrap()
    }

    /// The strangers as lists of tracks, by number.
    fn groups(&self) -> Vec<(i64, Vec<(String, i64)>)> {
        self.library.group_strangers(&Self::engine(), 1).unwrap();
        let mut groups: Vec<_> = (self.library.strangers().unwrap().into_iter())
            .map(|one| {
                let mut tracks: Vec<_> =
                    one.tracks.into_iter().map(|track| (track.content, track.track)).collect();
                tracks.sort();
                (one.number, tracks)
            })
            .collect();
        groups.sort();
        groups
    }
}

async fn put_place(transaction: &mut Transaction, path: &str, content: &str) -> Result<(), sqlx::Error> {
    on_connection!(transaction, c => {
        sqlx::query("INSERT INTO place VALUES ($1, $2, 9, 0, 1)").bind(path).bind(content).execute(c).await.map(drop)
    })
}

fn keys(list: &[(&str, i64)]) -> Vec<(String, i64)> {
    list.iter().map(|(content, track)| ((*content).to_owned(), *track)).collect()
}

fn counts(added: &Added) -> [usize; 4] {
    [added.new, added.known, added.elsewhere, added.gone]
}

#[test]
fn a_file_is_known_by_its_content_wherever_it_is() {
    let made = Made::new();
    let a = made.photo("a.jpg");
    made.photo("sub/b.jpg");
    assert_eq!(counts(&made.add()), [2, 0, 0, 0]);
    assert_eq!(counts(&made.add()), [0, 2, 0, 0]);
    fs::copy(&a, made.files.join("copy of a.jpg")).unwrap();
    assert_eq!(counts(&made.add()), [0, 2, 1, 0]);
    fs::rename(&a, made.files.join("renamed.jpg")).unwrap();
    assert_eq!(counts(&made.add()), [0, 2, 1, 1], "renamed");
    fs::remove_file(made.files.join("sub/b.jpg")).unwrap();
    assert_eq!(counts(&made.add()), [0, 2, 0, 1]);
    let status = made.library.status().unwrap();
    assert_eq!((status.photos.due, status.missing), (2, 1));
    made.photo("sub/b.jpg");
    assert_eq!(counts(&made.add()), [0, 2, 1, 0], "it came back");
    assert_eq!(made.library.status().unwrap().missing, 0);
    assert_eq!(made.library.roots().unwrap(), std::slice::from_ref(&made.files));
    // The reopened library has the same state.
    let again = Library::open(made.library.folder()).unwrap();
    assert_eq!(again.status().unwrap().photos.due, 2);
}

#[test]
fn what_still_grows_is_left_for_another_time() {
    let made = Made::new();
    made.photo("a.jpg");
    let hour = Duration::from_secs(3600);
    let roots = [made.files.clone()];
    assert_eq!(counts(&made.library.add_settled(&roots, hour).unwrap()), [0, 0, 0, 0]);
    assert_eq!(counts(&made.add()), [1, 0, 0, 0]);
    assert_eq!(counts(&made.library.add_settled(&roots, hour).unwrap()), [0, 1, 0, 0], "known, not gone");
}

#[test]
fn two_that_open_a_library_at_once_make_one() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let open = || Library::create(folder.path()).map(|library| library.status());
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        for thread in threads {
            thread.join().unwrap().unwrap().unwrap();
        }
    });
    let elsewhere = folder.path().join("elsewhere");
    assert!(matches!(Library::open(&elsewhere), Err(LibraryError::NoLibrary(_))));
    assert!(!elsewhere.exists(), "asking makes nothing");
}

#[test]
fn a_library_of_a_newer_program_is_refused() {
    let made = Made::new();
    made.run("UPDATE setting SET value = '99' WHERE key = 'version'");
    let error = Library::open(made.library.folder()).unwrap_err();
    assert!(matches!(error, LibraryError::Newer { found: 99, .. }), "{error}");
}

#[test]
fn people_are_found_with_their_times_and_together() {
    let made = Made::new();
    made.video("c1", "/v/one.mp4", 1000);
    made.video("c2", "/v/two.mp4", 500);
    made.video("c3", "/v/three.mp4", 2000);
    for (content, track, time, name) in [
        ("c1", 1, (0, 4), "Ada"),
        ("c1", 2, (4, 6), "Ada"),
        ("c1", 3, (5, 9), "Bo"),
        ("c2", 1, (1, 2), "Ada"),
        ("c2", 2, (8, 9), "Bo"),
        ("c3", 1, (0, 3), "Bo"),
    ] {
        made.track(content, track, time, name, 0, 0.0);
    }
    let named = |name: &str| Subject::Named(name.into());
    let paths = |query: &Query| -> Vec<String> {
        made.library.find(query).unwrap().into_iter().map(|file| file.paths[0].clone()).collect()
    };
    assert_eq!(paths(&Query::with([named("Ada")])), ["/v/two.mp4", "/v/one.mp4"], "in the order of time");
    let both = Query::with([named("Ada"), named("Bo")]);
    assert_eq!(paths(&both), ["/v/two.mp4", "/v/one.mp4"]);
    let together = Query { together: true, ..both.clone() };
    let found = made.library.find(&together).unwrap();
    assert_eq!((found.len(), found[0].spans.len()), (1, 1));
    assert_eq!(found[0].spans[0].to_string(), "0:05.0-0:06.0");
    assert_eq!(
        paths(&Query { from_s: Some(600), ..Query::with([named("Bo")]) }),
        ["/v/one.mp4", "/v/three.mp4"]
    );
    assert_eq!(paths(&Query { before_s: Some(1000), ..Query::with([named("Bo")]) }), ["/v/two.mp4"]);
    assert!(paths(&Query { kind: Some(Kind::Photo), ..both }).is_empty());
    assert!(matches!(made.library.find(&Query::with([named("Cy")])), Err(LibraryError::NoPerson(_))));
    let people = made.library.people().unwrap();
    let told: Vec<_> =
        people.iter().map(|one| (one.name.as_str(), one.videos, one.screen_ns / 1_000_000_000)).collect();
    assert_eq!(told, [("Bo", 3, 8), ("Ada", 2, 7)]);
}

#[test]
fn strangers_are_grouped_over_files_and_what_is_told_stays() {
    let made = Made::new();
    for content in ["c1", "c2", "c3"] {
        made.video(content, &format!("/v/{content}.mp4"), 0);
    }
    made.track("c1", 1, (0, 4), "", 0, 0.0);
    made.track("c2", 1, (0, 4), "", 0, 0.1);
    made.track("c2", 2, (0, 4), "", 3, 0.0);
    made.track("c3", 1, (0, 4), "", 3, 0.1);
    let (first, second) = (keys(&[("c1", 1), ("c2", 1)]), keys(&[("c2", 2), ("c3", 1)]));
    assert_eq!(made.groups(), [(1, first.clone()), (2, second.clone())]);
    assert!(!made.library.group_strangers(&Made::engine(), 1).unwrap(), "nothing changed");
    // A file that sorts before all others changes no number.
    made.video("a0", "/v/a0.mp4", 0);
    made.track("a0", 1, (0, 4), "", 3, 0.05);
    let second = [keys(&[("a0", 1)]), second].concat();
    assert_eq!(made.groups(), [(1, first.clone()), (2, second.clone())]);
    // One was two.
    let third = made.library.split_stranger(2, &keys(&[("c3", 1)])).unwrap();
    assert_eq!(third, 3);
    let split = [(1, first), (2, second[..2].to_vec()), (3, keys(&[("c3", 1)]))];
    assert_eq!(made.groups(), split);
    made.video("d4", "/v/d4.mp4", 0);
    made.track("d4", 1, (0, 4), "", 5, 0.0);
    assert_eq!(made.groups()[..3], split, "later files change nothing");
    // And two were one.
    made.library.merge_strangers(&[2, 3]).unwrap();
    assert_eq!(made.groups()[1], (2, second.clone()));
    made.library.merge_strangers(&[1, 4]).unwrap();
    assert_eq!(made.groups()[0].1, keys(&[("c1", 1), ("c2", 1), ("d4", 1)]));
    assert!(matches!(made.library.merge_strangers(&[1, 77]), Err(LibraryError::NoStranger(77))));
    assert!(made.library.split_stranger(1, &[]).is_err());
}

#[test]
fn a_stranger_who_is_named_is_enrolled_and_known_everywhere() {
    let made = Made::new();
    for content in ["c1", "c2"] {
        made.video(content, &format!("/v/{content}.mp4"), 0);
        made.track(content, 1, (0, 4), "", 0, 0.0);
    }
    let [(number, _)] = made.groups()[..] else { panic!("one stranger") };
    let gallery = made.files.join("gallery");
    let name = crate::gallery::PersonName::new("Ada").unwrap();
    let told = made.library.name_stranger(number, &name, &gallery).unwrap();
    assert_eq!(told, Told { tracks: 2, stills: 2 });
    assert!(made.groups().is_empty());
    assert_eq!(made.library.find(&Query::with([Subject::Named("Ada".into())])).unwrap().len(), 2);
    let folder = crate::gallery::GalleryFolder::open(&gallery).unwrap();
    assert_eq!(folder.people().unwrap()[0].stills.len(), 2);
    let page = page(
        &made.library,
        "Files with <Ada>",
        &made.library.find(&Query::with([Subject::Named("Ada".into())])).unwrap(),
    )
    .unwrap();
    assert!(page.contains("Files with &lt;Ada&gt;") && page.matches("data:image/jpeg;base64,").count() == 2);
    assert!(!page.contains("http:") && !page.contains("https:"), "nothing is fetched");
}

#[test]
fn who_is_forgotten_is_gone_and_a_file_too() {
    let made = Made::new();
    made.video("c1", "/v/one.mp4", 0);
    made.video("c2", "/v/two.mp4", 0);
    made.track("c1", 1, (0, 4), "Ada", 0, 0.0);
    made.track("c1", 2, (0, 4), "Bo", 1, 0.0);
    made.track("c2", 1, (0, 4), "Ada", 0, 0.0);
    let ada = Subject::Named("Ada".into());
    let forgotten = made.library.forget(&ada).unwrap();
    assert_eq!((forgotten.files, forgotten.tracks), (2, 2));
    assert!(matches!(made.library.find(&Query::with([ada.clone()])), Err(LibraryError::NoPerson(_))));
    assert!(matches!(made.library.forget(&ada), Err(LibraryError::NoPerson(_))));
    assert_eq!(made.library.picture("c1", 1).unwrap(), None);
    assert!(made.library.picture("c1", 2).unwrap().is_some(), "Bo stays");
    assert_eq!(made.library.forget_files(Path::new("/v")).unwrap(), 2);
    assert!(matches!(made.library.forget_files(Path::new("/v")), Err(LibraryError::NoFile(_))));
    assert_eq!(made.library.status().unwrap().tracks, 0);
    assert_eq!(made.library.picture("c1", 2).unwrap(), None);
}

#[test]
fn everything_is_exported() {
    let made = Made::new();
    let clip = made.files.join("one.mp4");
    made.video("c1", clip.to_str().unwrap(), 86_400);
    made.track("c1", 1, (1, 4), "Ada, \"Countess\"", 0, 0.0);
    made.track("c1", 2, (5, 6), "", 3, 0.0);
    made.groups();
    let export = |format| {
        let mut text = Vec::new();
        assert_eq!(made.library.export(format, &mut text).unwrap(), 2);
        String::from_utf8(text).unwrap()
    };
    let csv = export(ExportFormat::Csv);
    let path = clip.to_str().unwrap();
    let first = format!("{path},c1,video,1970-01-02T00:00:00,1,1,4,10,\"Ada, \"\"Countess\"\"\",,50");
    assert_eq!(csv.lines().nth(1), Some(first.as_str()));
    let lines = export(ExportFormat::JsonLines);
    let second: serde_json::Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&second["name"], &second["stranger"]), (&serde_json::Value::Null, &serde_json::json!(1)));
    assert_eq!(made.library.export_sidecars().unwrap(), 1);
    let sidecar = fs::read(made.files.join("one.mp4.faces.json")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["tracks"][0]["start_s"], 1.0);
}

#[test]
fn a_task_belongs_to_one_worker_and_comes_back_from_the_dead() {
    use super::queue::{Member, Outcome};
    let made = Made::new();
    made.photo("a.jpg");
    made.add();
    let library = &made.library;
    let member = |name: &str| {
        let member = Member::new(name, Duration::from_secs(1));
        library.runtime.block_on(member.register(&library.database)).unwrap();
        member
    };
    let (one, other) = (member("one"), member("other"));
    let next = |member: &Member| library.runtime.block_on(member.next(&library.database)).unwrap();
    let claim = next(&one).unwrap();
    assert_eq!(claim.tried, 0);
    assert!(next(&other).is_none(), "it is taken");
    // `one` sends no heartbeat.
    made.run("UPDATE Workers SET last_seen = last_seen - 60 WHERE id = 'one'");
    let again = next(&other).unwrap();
    assert_eq!((&again.content, again.tried), (&claim.content, 1));
    let finish = |member: &Member, claim: &queue::Claim| {
        library.runtime.block_on(async {
            let mut transaction = library.database.begin().await.unwrap();
            let kept = member.finish(&mut transaction, claim, &Outcome::Done).await.unwrap();
            transaction.commit().await.unwrap();
            kept
        })
    };
    assert!(!finish(&one, &claim), "the task is no longer that of the first");
    assert!(finish(&other, &again));
    assert!(next(&one).is_none());
    // A task that is returned can be taken by others, as if it had not been taken.
    made.photo("b.jpg");
    made.add();
    let claim = next(&one).unwrap();
    library.runtime.block_on(one.give_back(&library.database, &claim)).unwrap();
    assert_eq!(next(&other).unwrap().tried, 0);
}

/// Every file of a folder that is not hidden, with its bytes.
fn listing(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(place) = waiting.pop() {
        for path in fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => waiting.push(path),
                false if path.file_name().unwrap().to_string_lossy().starts_with('.') => {}
                false => {
                    files.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()))
                }
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_shared_gallery_is_the_folder_and_back_and_nobody_overwrites_another() {
    let made = Made::new();
    let library = &made.library;
    let at = |name: &str| made.files.join(name);
    assert!(matches!(library.get_gallery(&at("copy")), Err(LibraryError::Request(_))), "there is none yet");
    for (path, text) in
        [("own/Ada/person.json", "1"), ("own/Ada/stills/a.jpg", "2"), ("own/Bo/person.json", "3")]
    {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    }
    fs::write(at("own/.lock"), "").unwrap();
    assert_eq!(library.put_gallery(&at("own"), false).unwrap(), 1);
    assert_eq!(library.put_gallery(&at("own"), false).unwrap(), 1, "nothing changed");
    assert_eq!(
        (library.get_gallery(&at("copy")).unwrap(), library.get_gallery(&at("other")).unwrap()),
        (1, 1)
    );
    assert_eq!(listing(&at("copy")), listing(&at("own")));

    fs::write(at("copy/Ada/stills/b.jpg"), "4").unwrap();
    fs::remove_dir_all(at("copy/Bo")).unwrap();
    assert_eq!(library.put_gallery(&at("copy"), false).unwrap(), 2);
    fs::write(at("other/Ada/stills/c.jpg"), "5").unwrap();
    let error = library.put_gallery(&at("other"), false).unwrap_err();
    assert!(matches!(error, LibraryError::GalleryChanged(_)), "{error}");
    assert_eq!(library.get_gallery(&at("own")).unwrap(), 2);
    assert_eq!(listing(&at("own")), listing(&at("copy")));
    assert!(!at("own/Bo").exists(), "without an empty folder");
    assert_eq!(library.put_gallery(&at("other"), true).unwrap(), 3, "unless it is said so");
    assert_eq!(library.gallery_size().unwrap(), (4, 4));

    fs::create_dir(at("photos")).unwrap();
    fs::write(at("photos/mine.jpg"), "6").unwrap();
    let error = library.get_gallery(&at("photos")).unwrap_err();
    assert!(error.to_string().contains("is not a copy"), "{error}");
    made.run("UPDATE gallery_file SET path = '../escaped', change = 9 WHERE path = 'Ada/person.json'");
    assert!(library.get_gallery(&at("copy")).is_err());
    assert!(!at("escaped").exists());
}

#[test]
fn what_is_told_is_found_again_when_the_tracks_have_other_numbers() {
    use crate::analysis::{Analysis, Video};
    use crate::detect::DetectorConfig;
    use crate::track::{Observation, TrackId};
    let made = Made::new();
    made.video("c1", "/v/one.mp4", 0);
    made.track("c1", 1, (0, 4), "", 0, 0.0);
    let key = ("c1".to_owned(), 1);
    let told = |analysis: Option<&Analysis>| -> Vec<(i64, String)> {
        made.library
            .wait(async {
                let mut transaction = made.library.database.begin().await?;
                match analysis {
                    Some(analysis) => told::follow(&mut transaction, "c1", analysis).await?,
                    None => told::tell(&mut transaction, &key, told::Kind::Name, (0, 0), "Ada").await?,
                }
                let rows = on_connection!(&mut transaction, c => {
                    sqlx::query_as("SELECT track, name FROM told").fetch_all(c).await
                })?;
                transaction.commit().await?;
                Ok(rows)
            })
            .unwrap()
    };
    let seen = |track: u32, x: f32| Observation {
        frame: 3,
        pts_ns: 0,
        duration_ns: 1,
        face: Face {
            bbox: BBox { x1: x, y1: 30.0, x2: x + 96.0, y2: 142.0 },
            score: 0.99,
            landmarks: [[0.0; 2]; 5],
        },
        quality: Quality { size_px: 100.0, yaw_deg: 0.0, pitch_deg: 0.0, roll_deg: 0.0, sharpness: 0.3 },
        embedding: None,
        track: TrackId(track),
    };
    let analysis = |observations: Vec<Observation>| Analysis {
        video: Video {
            name: "one.mp4".into(),
            width: 640,
            height: 360,
            fps: None,
            frames: 100,
            duration_ns: 4,
            fingerprint: String::new(),
            sampled_fps: None,
            key_frames: false,
        },
        model: None,
        arithmetic: Arithmetic::F32,
        mirror: false,
        detector: DetectorConfig::default(),
        cuts: Vec::new(),
        observations,
    };
    assert_eq!(told(None), [(1, "Ada".into())]);
    // Another person has the number now, and she another one.
    let renumbered = analysis(vec![seen(1, 300.0), seen(2, 44.0)]);
    assert_eq!(told(Some(&renumbered)), [(2, "Ada".into())]);
    // Nobody is there: nobody is Ada, but it is not lost.
    assert_eq!(told(Some(&analysis(vec![seen(2, 300.0)]))), [(-2, "Ada".into())]);
    assert_eq!(told(Some(&analysis(vec![seen(7, 38.0)]))), [(7, "Ada".into())]);
}
