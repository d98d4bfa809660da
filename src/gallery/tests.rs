use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::*;
use crate::detect::BBox;
use crate::embed::Embedding;
use crate::models::ModelId;
use crate::mutations;

const MODEL: ModelId = ModelId([1; 8]);
const OTHER: ModelId = ModelId([2; 8]);

fn name(text: &str) -> PersonName {
    PersonName::new(text).unwrap()
}

/// A PNG with a face (of a kind) in it, different for every seed.
fn still(file_name: &str, seed: u8) -> NewStill {
    let image = RgbImage::from_fn(160, 160, |x, y| {
        image::Rgb([(x * 7 + y * 13) as u8 ^ seed, (x * y) as u8, seed.wrapping_mul(3)])
    });
    let mut png = io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let face = Face {
        bbox: BBox { x1: 30.0, y1: 20.0, x2: 130.0, y2: 140.0 },
        score: 0.99,
        landmarks: align::TEMPLATE.map(|[x, y]| [x + 32.0, y + 24.0]),
    };
    let examined = examine(&image, vec![face], Choice::Largest).unwrap();
    NewStill { file_name: file_name.to_owned(), bytes: png.into_inner(), examined }
}

/// Embeds a crop as a direction that depends on its pixels and the model.
fn embed_as(model: ModelId) -> impl FnMut(&[Crop]) -> Result<Vec<Embedding>, Infallible> {
    move |crops| {
        let one = |crop: &Crop| {
            let hash = blake3::keyed_hash(&[model.0[0]; 32], crop.as_rgb());
            let vector = hash.as_bytes().iter().map(|&b| f32::from(b) - 127.5).collect();
            Embedding::new(model, vector).unwrap()
        };
        Ok(crops.iter().map(one).collect())
    }
}

fn refuse_to_embed(_: &[Crop]) -> Result<Vec<Embedding>, String> {
    Err("must not be called".to_owned())
}

fn empty() -> (tempfile::TempDir, GalleryFolder) {
    let folder = tempfile::tempdir().unwrap();
    let gallery = GalleryFolder::create(&folder.path().join("gallery")).unwrap();
    (folder, gallery)
}

/// Every file below a folder with its content.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in disk::names(root).unwrap() {
        let path = root.join(name);
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn a_person_is_kept_as_given() {
    let (_folder, gallery) = empty();
    let done = gallery.enroll(&name("Zoë"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
    assert_eq!((done.added, done.known), (2, 0));
    let people = gallery.people().unwrap();
    assert_eq!(people, [done.person]);
    assert_eq!(people[0].folder, gallery.root().join("Zoë"));
    let stored = fs::read(people[0].folder.join("stills/a.png")).unwrap();
    assert_eq!(stored, still("a.png", 1).bytes);
    assert_eq!(people[0].stills[1].face, still("b.png", 2).examined.face);
    assert_eq!(gallery.strays().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn stills_add_up_and_the_same_still_counts_once() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
    // Another picture under the same file name, and the first one under another.
    let done = gallery.enroll(&name(" Ann "), vec![still("A.png", 2), still("again.png", 1)]).unwrap();
    assert_eq!((done.added, done.known), (1, 1));
    let files: Vec<_> = done.person.stills.iter().map(|still| still.file.as_str()).collect();
    assert_eq!(files, ["a.png", "A-2.png"]);
    assert_eq!(gallery.people().unwrap(), [done.person]);
}

#[test]
fn another_face_of_a_known_still_replaces_the_first() {
    let (_folder, gallery) = empty();
    let first = still("a.png", 1);
    let mut second = first.clone();
    gallery.enroll(&name("Ann"), vec![first]).unwrap();
    let before = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    second.examined.face.landmarks = align::TEMPLATE.map(|[x, y]| [x + 10.0, y + 5.0]);
    second.examined.crop = Crop::from_rgb(vec![9; Crop::LEN_BYTES]).unwrap();
    let done = gallery.enroll(&name("Ann"), vec![second]).unwrap();
    assert_eq!((done.added, done.known, done.person.stills.len()), (0, 1, 1));
    let after = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    assert_eq!(after.re_embedded, 1);
    assert_ne!(before.people, after.people);
    assert_eq!(disk::names(&done.person.folder.join("derived/crops")).unwrap().len(), 1);
}

#[test]
fn one_face_is_not_two_people() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
    let before = tree(gallery.root());
    let error = gallery.enroll(&name("Bo"), vec![still("x.png", 2), still("b.png", 1)]).unwrap_err();
    assert!(
        matches!(&error, GalleryError::EnrolledAs { still: 1, person, .. } if person == "Ann"),
        "{error}"
    );
    assert_eq!(tree(gallery.root()), before);
    // Another face of the same picture may be another person.
    let mut neighbour = still("b.png", 1);
    neighbour.examined.face.bbox = BBox { x1: 131.0, y1: 20.0, x2: 158.0, y2: 60.0 };
    gallery.enroll(&name("Bo"), vec![neighbour]).unwrap();
    assert_eq!(gallery.people().unwrap().len(), 2);
}

#[test]
fn hostile_names_stay_inside_and_never_collide() {
    let (folder, gallery) = empty();
    let names = ["../../evil", "...", "/etc", "a/b", "a:b", "A_B", ".lock", ".new", "CON", "🙂"];
    for (i, text) in names.iter().enumerate() {
        gallery.enroll(&name(text), vec![still("../../../x.png", i as u8)]).unwrap();
    }
    let people = gallery.people().unwrap();
    let mut found: Vec<_> = people.iter().map(|person| person.name.as_str()).collect();
    let mut expected = names.to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(people.iter().all(|person| person.folder.parent() == Some(gallery.root())));
    assert_eq!(disk::names(folder.path()).unwrap(), ["gallery"]);
    assert!(tree(folder.path()).keys().all(|path| path.starts_with(gallery.root())));
}

#[test]
fn removal_leaves_nothing_and_nobody_else_is_touched() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Bo"), vec![still("b.png", 2)]).unwrap();
    let before = tree(gallery.root());
    gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
    assert_eq!(gallery.remove(&name("Ann")).unwrap().name, name("Ann"));
    assert_eq!(tree(gallery.root()), before);
    assert!(matches!(gallery.remove(&name("Ann")), Err(GalleryError::Unknown(_))));
}

#[test]
fn what_a_crash_leaves_does_not_count_and_is_cleared_away() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
    // Killed while building a new person, while removing one, and while adding a still.
    for leftover in [".new", ".removed"] {
        fs::create_dir_all(gallery.root().join(leftover).join("stills")).unwrap();
        fs::copy(ann.folder.join(INDEX), gallery.root().join(leftover).join(INDEX)).unwrap();
    }
    fs::write(ann.folder.join("stills/half.png"), b"half").unwrap();
    for half in ["stills/.a.png.x1.part", ".person.json.x1.part", "derived/crops/.a.png.x1.part"] {
        fs::write(ann.folder.join(half), b"half").unwrap();
    }
    assert_eq!(gallery.people().unwrap(), std::slice::from_ref(&ann));
    assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().people[0].templates.len(), 1);

    gallery.enroll(&name("Ann"), vec![still("c.png", 3)]).unwrap();
    assert_eq!(disk::names(&ann.folder.join(STILLS)).unwrap(), ["a.png", "c.png"]);
    assert_eq!(disk::names(&ann.folder).unwrap(), ["derived", "person.json", "stills"]);
    assert_eq!(disk::names(gallery.root()).unwrap(), [".lock", "Ann"]);
}

#[test]
fn a_still_somebody_deleted_no_longer_counts() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap().person;
    assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().people[0].templates.len(), 3);
    fs::remove_file(ann.folder.join("stills/a.png")).unwrap();
    let now = gallery.person(&name("Ann")).unwrap();
    assert_eq!((now.stills.len(), now.missing), (1, vec!["a.png".to_owned()]));
    let templates = gallery.templates(MODEL, refuse_to_embed).unwrap();
    let sources: Vec<_> = templates.people[0].templates.iter().map(|t| t.source.as_str()).collect();
    assert_eq!(sources, ["b.png"]);
}

#[test]
fn templates_are_the_stills_and_their_mean() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Bo"), vec![still("one.png", 9)]).unwrap();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
    let templates = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    assert_eq!(templates.re_embedded, 3);
    let sources: Vec<Vec<_>> = templates
        .people
        .iter()
        .map(|person| person.templates.iter().map(|t| t.source.as_str()).collect())
        .collect();
    assert_eq!(sources, [vec!["a.png", "b.png", "mean"], vec!["one.png"]]);
    let [a, b, mean] = [0, 1, 2].map(|i| templates.people[0].templates[i].embedding.as_slice());
    let sum: Vec<f32> = a.iter().zip(b).map(|(x, y)| x + y).collect();
    let norm = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(mean.iter().zip(&sum).all(|(m, s)| (m - s / norm).abs() < 1e-6));
}

#[test]
fn a_model_embeds_once_and_models_are_never_mixed() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
    let first = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    let again = gallery.templates(MODEL, refuse_to_embed).unwrap();
    assert_eq!((again.re_embedded, &again.people), (0, &first.people));

    let other = gallery.templates(OTHER, embed_as(OTHER)).unwrap();
    assert_eq!(other.re_embedded, 2);
    assert!(other.people[0].templates.iter().all(|t| t.embedding.model() == OTHER));
    // And back, without the network: both are kept.
    assert_eq!(gallery.templates(MODEL, refuse_to_embed).unwrap().people, first.people);

    // Only new stills are embedded.
    gallery.enroll(&name("Ann"), vec![still("c.png", 3)]).unwrap();
    assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().re_embedded, 1);

    // A file of another model under this one's name is not used.
    let derived = gallery.root().join("Ann/derived");
    fs::rename(
        derived.join(format!("embeddings-{OTHER}.json")),
        derived.join(format!("embeddings-{MODEL}.json")),
    )
    .unwrap();
    assert_eq!(gallery.templates(MODEL, embed_as(MODEL)).unwrap().re_embedded, 3);
}

#[test]
fn an_embedder_of_another_model_is_refused() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap();
    assert!(matches!(gallery.templates(MODEL, embed_as(OTHER)), Err(GalleryError::Embed { .. })));
    let none = |_: &[Crop]| Ok::<_, Infallible>(vec![]);
    assert!(matches!(gallery.templates(MODEL, none), Err(GalleryError::Embed { .. })));
}

#[test]
fn everything_derived_can_be_rebuilt() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap().person;
    let first = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    fs::remove_dir_all(ann.folder.join(DERIVED)).unwrap();
    let again = gallery.templates(MODEL, embed_as(MODEL)).unwrap();
    assert_eq!((again.re_embedded, again.people), (2, first.people));

    fs::remove_dir_all(ann.folder.join(DERIVED)).unwrap();
    fs::copy(ann.folder.join("stills/a.png"), ann.folder.join("stills/b.png")).unwrap();
    assert!(matches!(gallery.templates(MODEL, embed_as(MODEL)), Err(GalleryError::StillChanged(_))));
}

#[test]
fn damaged_indices_are_named() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
    let index = ann.folder.join(INDEX);
    let text = fs::read_to_string(&index).unwrap();
    for broken in [
        String::new(),
        text.replace("a.png", "../a.png"),
        text.replace("\"Ann\"", "\"\""),
        text.replace("\"version\": 1", "\"version\": 3"),
    ] {
        assert_ne!(broken, text);
        fs::write(&index, broken).unwrap();
        let error = gallery.people().unwrap_err();
        assert!(matches!(error, GalleryError::Damaged { ref path, .. } if *path == index), "{error}");
    }
}

#[test]
fn a_copied_folder_is_found_out() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1)]).unwrap().person;
    let copy = gallery.root().join("Copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(ann.folder.join(INDEX), copy.join(INDEX)).unwrap();
    assert!(matches!(gallery.people(), Err(GalleryError::Twice { .. })));
}

#[test]
fn folders_made_by_hand_are_strays() {
    let (_folder, gallery) = empty();
    fs::create_dir(gallery.root().join("Bo")).unwrap();
    fs::write(gallery.root().join("README.md"), "about").unwrap();
    assert_eq!(gallery.people().unwrap(), []);
    assert_eq!(gallery.strays().unwrap(), [gallery.root().join("Bo")]);
}

#[test]
fn no_gallery_is_an_error_that_says_what_to_do() {
    let error = GalleryFolder::open(Path::new("no/such/gallery")).unwrap_err();
    assert!(matches!(error, GalleryError::Missing(_)));
    assert!(error.to_string().contains("sphereface enroll"), "{error}");
}

#[test]
fn writers_wait_for_each_other() {
    let (_folder, gallery) = empty();
    std::thread::scope(|scope| {
        for i in 0..8u8 {
            let gallery = &gallery;
            scope.spawn(move || {
                // Half of them add to one person, half add a person each.
                let who = if i % 2 == 0 { "Ann".to_owned() } else { format!("P{i}") };
                gallery.enroll(&name(&who), vec![still("same.png", i)]).unwrap();
            });
        }
    });
    let people = gallery.people().unwrap();
    assert_eq!(people.iter().map(|person| person.stills.len()).collect::<Vec<_>>(), [4, 1, 1, 1, 1]);
    assert!(people.iter().all(|person| person.missing.is_empty()));
}

#[test]
fn everybody_has_a_colour_of_their_own_and_keeps_it() {
    let (_folder, gallery) = empty();
    for (seed, person) in ["Ada", "Bo", "Cy"].into_iter().enumerate() {
        gallery.enroll(&name(person), vec![still("a.png", seed as u8)]).unwrap();
    }
    let colours = || -> Vec<(String, Option<u32>)> {
        gallery.people().unwrap().into_iter().map(|one| (one.name.to_string(), one.colour)).collect()
    };
    let of = |people: &[(&str, u32)]| -> Vec<(String, Option<u32>)> {
        people.iter().map(|(name, colour)| ((*name).to_owned(), Some(*colour))).collect()
    };
    assert_eq!(colours(), of(&[("Ada", 0), ("Bo", 1), ("Cy", 2)]));
    gallery.remove(&name("Bo")).unwrap();
    gallery.enroll(&name("Cy"), vec![still("b.png", 10)]).unwrap();
    gallery.reject(&name("Ada"), vec![still("c.png", 11)]).unwrap();
    assert_eq!(colours(), of(&[("Ada", 0), ("Cy", 2)]));
    gallery.enroll(&name("Dee"), vec![still("d.png", 12)]).unwrap();
    gallery.enroll(&name("Eve"), vec![still("e.png", 13)]).unwrap();
    assert_eq!(colours(), of(&[("Ada", 0), ("Cy", 2), ("Dee", 1), ("Eve", 3)]));
}

#[test]
fn a_large_gallery_is_packed_and_follows_every_change() {
    let (_folder, gallery) = empty();
    gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap();
    let bo = gallery.enroll(&name("Bo"), vec![still("one.png", 9)]).unwrap().person;
    gallery.reject(&name("Bo"), vec![still("not.png", 4)]).unwrap();
    let path = pack::path(gallery.root(), MODEL);
    let packed = || gallery.templates_packed(MODEL, 1, &mut embed_as(MODEL)).unwrap().people;
    // As if there were no such file.
    let plain = || {
        let kept = fs::read(&path);
        let _ = fs::remove_file(&path);
        let people = gallery.templates(MODEL, embed_as(MODEL)).unwrap().people;
        kept.into_iter().for_each(|kept| fs::write(&path, kept).unwrap());
        people
    };
    let expected = plain();
    assert!(!path.exists(), "a small gallery has no such file");
    assert_eq!(packed(), expected, "read from the folders");
    let file = fs::read(&path).unwrap();
    // From the file alone: the small ones could not be read.
    fs::write(bo.folder.join("derived").join(format!("embeddings-{MODEL}.json")), "{").unwrap();
    assert_eq!(gallery.templates_packed(MODEL, 1, &mut refuse_to_embed).unwrap().people, expected);
    assert_eq!(fs::read(&path).unwrap(), file, "nothing changed");
    assert!(gallery.templates_packed(OTHER, 1, &mut refuse_to_embed).is_err(), "of one model only");

    // A person is enrolled, gets another still, loses one by hand, and is removed.
    gallery.enroll(&name("Cy"), vec![still("c.png", 5)]).unwrap();
    assert_eq!(packed(), plain());
    gallery.enroll(&name("Ann"), vec![still("d.png", 6)]).unwrap();
    assert_eq!(packed(), plain());
    assert_eq!(packed()[0].templates.len(), 4);
    fs::remove_file(gallery.root().join("Ann/stills/a.png")).unwrap();
    assert_eq!(packed()[0].templates.len(), 3);
    gallery.remove(&name("Ann")).unwrap();
    assert!(!path.exists(), "nothing of a removed person stays");
    assert_eq!(packed(), plain());
    assert_eq!(packed().len(), 2);

    // A truncated file, or one of another kind, is written again.
    let whole = fs::read(&path).unwrap();
    assert_ne!(whole, file);
    for damaged in
        [&whole[..whole.len() - 4], &whole[..20], b"", b"SFPACK\x01\n\xff\xff\xff\xff\xff\xff\xff\xff{}"]
    {
        fs::write(&path, damaged).unwrap();
        assert_eq!(packed(), plain());
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn galleries_of_any_bytes_are_survived() {
    let (_folder, gallery) = empty();
    let ann = gallery.enroll(&name("Ann"), vec![still("a.png", 1), still("b.png", 2)]).unwrap().person;
    gallery.reject(&name("Ann"), vec![still("not.png", 4)]).unwrap();
    let expected = gallery.templates_packed(MODEL, 1, &mut embed_as(MODEL)).unwrap().people;
    let pack = pack::path(gallery.root(), MODEL);
    assert_eq!(pack::Pack::open(&pack, MODEL).unwrap().everybody(), expected);
    mutations::survived_by("gallery_pack", "ann", &fs::read(&pack).unwrap(), 500);
    fs::remove_file(&pack).unwrap();
    // Damaged derived files are made again and never used.
    let derived = ann.folder.join(DERIVED).join(format!("embeddings-{MODEL}.json"));
    let kept = fs::read(&derived).unwrap();
    mutations::survived_by("gallery_embeddings", "ann.json", &kept, 60);
    mutations::survived(&kept, 60, |bytes| {
        fs::write(&derived, bytes).unwrap();
        let found = gallery.templates(MODEL, embed_as(MODEL));
        assert!(found.is_ok_and(|found| found.people.len() == expected.len()));
    });
    let index = ann.folder.join(INDEX);
    let kept = fs::read(&index).unwrap();
    mutations::survived_by("gallery_person", "ann.json", &kept, 100);
    mutations::survived(&kept, 100, |bytes| {
        fs::write(&index, bytes).unwrap();
        drop(gallery.people());
        drop(gallery.templates(MODEL, embed_as(MODEL)));
    });
}
