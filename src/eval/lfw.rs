//! LFW's files: the list of pairs, and the images it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::verification::Pair;
use super::{EvalError, read};
use crate::align::{self, Crop};
use crate::detect::{Detector, Quality, Scratch};
use crate::gallery::Viewpoint;
use crate::media::read_still;
use crate::prepare::{Subject, subject};

/// Folds into which a list without folds is cut.
pub const FOLDS_OF_AN_UNFOLDED_LIST: usize = 10;

/// One image of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageName {
    /// By name and number, as in LFW.
    Numbered {
        /// The person, which is the name of the folder.
        person: String,
        /// The number of the image, from 1.
        number: u32,
    },
    /// By its path.
    Path(String),
}

impl ImageName {
    /// The path of the image in `folder`: `NAME/NAME_0001` with the first existing extension of jpg, png and
    /// webp, or its path.
    pub fn find(&self, folder: &Path) -> Option<PathBuf> {
        let Self::Numbered { person, .. } = self else {
            return Some(folder.join(self.to_string())).filter(|path| path.is_file());
        };
        ["jpg", "png", "webp"]
            .into_iter()
            .map(|ending| folder.join(person).join(format!("{self}.{ending}")))
            .find(|path| path.is_file())
    }

    /// The person: the name, or the folder of a path.
    pub fn person(&self) -> String {
        match self {
            Self::Numbered { person, .. } => person.clone(),
            Self::Path(path) => {
                let folder = Path::new(path).parent().and_then(Path::file_name);
                folder.map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned())
            }
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered { person, number } => write!(f, "{person}_{number:04}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// A list of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// Every image that a pair names, once.
    pub images: Vec<ImageName>,
    /// The pairs, as indices into `images`.
    pub pairs: Vec<Pair>,
    /// Whether the folds were given by the file.
    pub folded: bool,
}

impl Pairs {
    /// Reads a list in one of the two forms of LFW. The first line of view 2 is
    /// `folds<TAB>count`, then each fold has `count` pairs of the same person and `count` of different
    /// people; that of view 1 is `count`, and there is one such block. It is split into 10 folds: the first
    /// pair of each kind goes to the first fold, the second to the second, ... Fields are separated by tabs
    /// as in LFW's own files, or commas, or spaces.
    ///
    /// Or any list of pairs: each line has two paths, whether they show the same person (1, true, same; 0,
    /// false, different), and optionally the number of the fold. The truth may also come first. A header line
    /// is skipped.
    ///
    /// # Errors
    /// When the file cannot be read or a line is invalid; with its number.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        Self::parse(&read(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, EvalError> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let error = |index: usize, cause: &str| EvalError::Pairs {
            path: path.into(),
            line: index + 1,
            cause: cause.into(),
        };
        let (index, header) = lines.next().ok_or_else(|| error(0, "the file is empty"))?;
        if fields(header).len() > 2 {
            return Self::parse_free(text, path);
        }
        let numbers: Option<Vec<usize>> = fields(header).into_iter().map(|n| n.parse().ok()).collect();
        let (folds, count, folded) = match numbers.as_deref() {
            Some(&[count]) => (1, count, false),
            Some(&[folds, count]) => (folds, count, true),
            _ => return Err(error(index, "the first line must hold one or two numbers")),
        };
        if folds == 0 || count == 0 {
            return Err(error(index, "it announces no pairs"));
        }
        let mut indices: BTreeMap<ImageName, usize> = BTreeMap::new();
        let mut pairs = Vec::new();
        for fold in 0..folds {
            for (same, place) in [true, false].into_iter().flat_map(|same| (0..count).map(move |i| (same, i)))
            {
                let (index, line) =
                    lines.next().ok_or_else(|| error(text.lines().count(), "lines are missing"))?;
                let (a, b) = pair(line, same).ok_or_else(|| {
                    error(index, if same { "not `name i j`" } else { "not `name i other-name j`" })
                })?;
                let mut number = |image: ImageName| {
                    let next = indices.len();
                    *indices.entry(image).or_insert(next)
                };
                let (first, second) = (number(a), number(b));
                let fold = if folded { fold } else { place % FOLDS_OF_AN_UNFOLDED_LIST };
                pairs.push(Pair { first, second, same, fold });
            }
        }
        if let Some((index, _)) = lines.next() {
            return Err(error(index, "there are more lines than the first line says"));
        }
        let mut images: Vec<(ImageName, usize)> = indices.into_iter().collect();
        images.sort_by_key(|(_, index)| *index);
        Ok(Self { images: images.into_iter().map(|(image, _)| image).collect(), pairs, folded })
    }

    /// Reads lines of two paths and whether they are the same person.
    fn parse_free(text: &str, path: &Path) -> Result<Self, EvalError> {
        let mut indices: BTreeMap<String, usize> = BTreeMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        let mut folded = None;
        let mut places = [0, 0];
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        for (number, (index, line)) in lines.enumerate() {
            let error =
                |cause: &str| EvalError::List { path: path.into(), line: index + 1, cause: cause.into() };
            let fields = fields(line);
            let is_heading =
                |field: &&str| !field.contains(['.', '/', '\\']) && field.parse::<f64>().is_err();
            if number == 0 && fields.iter().all(is_heading) {
                continue;
            }
            let (first, second, same, fold) = free_pair(&fields).ok_or_else(|| {
                error("a line must have two paths and whether they show the same person (1 or 0), as in `a.jpg b.jpg 1`")
            })?;
            let has_fold = fold.is_some();
            if folded.is_some_and(|folded| folded != has_fold) {
                return Err(error("every line must have a fold, or none"));
            }
            folded = Some(has_fold);
            let place = &mut places[usize::from(same)];
            let fold = fold.unwrap_or(*place % FOLDS_OF_AN_UNFOLDED_LIST);
            *place += 1;
            let mut number = |image: &str| {
                let next = indices.len();
                *indices.entry(image.to_owned()).or_insert(next)
            };
            pairs.push(Pair { first: number(first), second: number(second), same, fold });
        }
        // Folds may be counted from 1, or be a subset of more.
        let folds: BTreeSet<usize> = pairs.iter().map(|pair| pair.fold).collect();
        let folds: BTreeMap<usize, usize> = folds.into_iter().zip(0..).collect();
        pairs.iter_mut().for_each(|pair| pair.fold = folds[&pair.fold]);
        let mut images: Vec<(String, usize)> = indices.into_iter().collect();
        images.sort_by_key(|(_, index)| *index);
        let images = images.into_iter().map(|(image, _)| ImageName::Path(image)).collect();
        Ok(Self { images, pairs, folded: folded == Some(true) })
    }

    /// The list without the images for which `has` is false, and the number of pairs removed.
    pub fn only(&self, has: &[bool]) -> (Self, usize) {
        let mut places = Vec::with_capacity(self.images.len());
        let mut images = Vec::new();
        for (index, image) in self.images.iter().enumerate() {
            let kept = has.get(index) == Some(&true);
            places.push(kept.then_some(images.len()));
            if kept {
                images.push(image.clone());
            }
        }
        let place = |index: usize| places.get(index).copied().flatten();
        let pairs: Vec<Pair> = self
            .pairs
            .iter()
            .filter_map(|p| Some(Pair { first: place(p.first)?, second: place(p.second)?, ..*p }))
            .collect();
        let lost = self.pairs.len() - pairs.len();
        (Self { images, pairs, folded: self.folded }, lost)
    }
}

/// The fields of a line: names may contain spaces if the fields are separated by tabs or commas.
fn fields(line: &str) -> Vec<&str> {
    let separator = ['\t', ',', ';'].into_iter().find(|separator| line.contains(*separator));
    let is_between = |c: char| separator.map_or(c.is_whitespace(), |separator| c == separator);
    line.split(is_between).map(str::trim).filter(|field| !field.is_empty()).collect()
}

/// The paths of a line, whether they show the same person, and the fold.
fn free_pair<'a>(fields: &[&'a str]) -> Option<(&'a str, &'a str, bool, Option<usize>)> {
    let truth = |field: &str| match field.to_ascii_lowercase().as_str() {
        "1" | "true" | "same" | "yes" => Some(true),
        "0" | "-1" | "false" | "different" | "no" => Some(false),
        _ => None,
    };
    match *fields {
        [first, second, same] => match truth(same) {
            Some(same) => Some((first, second, same, None)),
            None => truth(first).map(|is_same| (second, same, is_same, None)),
        },
        [first, second, same, fold] => Some((first, second, truth(same)?, Some(fold.parse().ok()?))),
        _ => None,
    }
}

fn pair(line: &str, same: bool) -> Option<(ImageName, ImageName)> {
    let image = |person: &str, number: &str| {
        // A name is one folder: it must not contain a path.
        let plain = !person.is_empty() && !person.contains(['/', '\\']) && person != "." && person != "..";
        Some(ImageName::Numbered { person: plain.then(|| person.into())?, number: number.parse().ok()? })
    };
    match (fields(line).as_slice(), same) {
        ([name, i, j], true) => Some((image(name, i)?, image(name, j)?)),
        ([a, i, b, j], false) => Some((image(a, i)?, image(b, j)?)),
        _ => None,
    }
}

/// Reads an aligned crop: 96x112 pixels, or 112x112 with the columns at both sides.
///
/// # Errors
/// When it cannot be read or has another size.
pub fn read_crop(path: &Path) -> Result<Crop, EvalError> {
    let image = read_still(path)?;
    let (width, height) = image.dimensions();
    Crop::from_image(image).ok_or_else(|| EvalError::NotAligned { path: path.into(), width, height })
}

/// The face of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Portrait {
    /// The crop of the face nearest to the centre.
    pub crop: Crop,
    /// The view of that face.
    pub view: Viewpoint,
    /// The number of faces found.
    pub faces: usize,
    /// Whether the photo was already an aligned crop and was used unchanged.
    pub already_aligned: bool,
}

/// Reads photos and aligns in each the face nearest to its centre; `None` without a face.
/// The work is shared by `threads` threads.
///
/// # Errors
/// When a photo cannot be read.
pub fn portraits(
    paths: &[PathBuf],
    detector: &Detector,
    threads: usize,
) -> Result<Vec<Option<Portrait>>, EvalError> {
    let share = paths.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = paths
            .chunks(share)
            .map(|paths| {
                scope.spawn(move || {
                    let mut scratch = Scratch::default();
                    paths.iter().map(|path| portrait(path, detector, &mut scratch)).collect()
                })
            })
            .collect();
        let results = workers.into_iter().map(|worker| match worker.join() {
            Ok(portraits) => portraits,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok(results.collect::<Result<Vec<Vec<_>>, EvalError>>()?.concat())
    })
}

fn portrait(path: &Path, detector: &Detector, scratch: &mut Scratch) -> Result<Option<Portrait>, EvalError> {
    let image = read_still(path)?;
    let Some(Subject { face, faces }) = subject(&image, detector, scratch)? else { return Ok(None) };
    let view = Viewpoint::of(&face, &Quality::measure(&face, &image));
    Ok(match align::already_aligned(&image, &face.landmarks) {
        Some(crop) => Some(Portrait { crop, view, faces, already_aligned: true }),
        None => {
            let crop = align::align(&image, &face.landmarks);
            crop.map(|crop| Portrait { crop, view, faces, already_aligned: false })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;
    use image::RgbImage;

    fn parse(text: &str) -> Result<Pairs, EvalError> {
        Pairs::parse(text, Path::new("pairs.txt"))
    }

    #[test]
    fn both_views_are_read() {
        let two = parse("2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t3\t4\nC\t3\tA\t2\n").unwrap();
        assert!(two.folded);
        assert_eq!(two.images.len(), 5);
        let pair = |first, second, same, fold| Pair { first, second, same, fold };
        assert_eq!(
            two.pairs,
            [pair(0, 1, true, 0), pair(0, 2, false, 0), pair(3, 4, true, 1), pair(3, 1, false, 1)]
        );
        let mut text = String::from("12\n");
        (1..=12).for_each(|i| text += &format!("A\t{i}\t{}\n", i + 1));
        (1..=12).for_each(|i| text += &format!("A\t{i}\tB_C\t{i}\n"));
        let one = parse(&text).unwrap();
        assert!(!one.folded);
        let folds: Vec<usize> = one.pairs.iter().map(|p| p.fold).collect();
        assert_eq!(folds[..12], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
        assert_eq!(folds[..12], folds[12..]);
    }

    #[test]
    fn tabs_commas_spaces_and_line_ends_of_any_system_make_no_difference() {
        let text = "2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t3\t4\nC\t3\tA\t2\n";
        let expected = parse(text).unwrap();
        let variants = [
            text.replace('\n', "\r\n"),
            text.replace('\t', " "),
            text.replace('\t', ","),
            text.replace('\t', ", "),
            text.replace('\t', ";"),
            text.replace('\t', " \t"),
            text.replace('\t', "   "),
            text.replace('\t', ",").replace('\n', ",\r\n"),
            format!("\n{}\n\n", text.trim_end()),
        ];
        for variant in variants {
            let read = parse(&variant).unwrap_or_else(|error| panic!("{variant:?}: {error}"));
            assert_eq!((&read.images, &read.pairs), (&expected.images, &expected.pairs), "{variant:?}");
        }
        let spaced = parse("1\nAda Lovelace\t1\t2\nAda Lovelace\t1\tBo\t1\n").unwrap();
        assert_eq!(spaced.images[0].person(), "Ada Lovelace");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.txt");
        std::fs::write(&path, format!("\u{feff}{text}")).unwrap();
        assert_eq!(Pairs::read(&path).unwrap().pairs, expected.pairs, "a byte-order mark");
    }

    #[test]
    fn a_broken_list_is_refused_with_the_line() {
        for (text, line) in [
            ("", 1),
            ("one\n", 1),
            ("1\nA\t1\t2\n", 3),
            ("1\nA\t1\n", 2),
            ("1\nA\t1\t2\nA\t1\t2\n", 3),
            ("1\nA\t1\t2\nA\t1\tB\t1\nextra\n", 4),
            ("1\n../A\t1\t2\nA\t1\tB\t1\n", 2),
            ("99999999999\nA\t1\t2\n", 3),
            ("99999999999 0\n", 1),
            ("0\n", 1),
        ] {
            match parse(text) {
                Err(EvalError::Pairs { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn any_list_of_pairs_is_read() {
        let text = "a/1.jpg b/2.jpg 0\na/1.jpg a/3.jpg 1\n";
        let expected = parse(text).unwrap();
        assert!(!expected.folded);
        let names: Vec<String> = expected.images.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a/1.jpg", "b/2.jpg", "a/3.jpg"]);
        assert_eq!(expected.images[1].person(), "b");
        let pair = |first, second, same, fold| Pair { first, second, same, fold };
        assert_eq!(expected.pairs, [pair(0, 1, false, 0), pair(0, 2, true, 0)]);
        for variant in [
            text.replace(' ', "\t"),
            text.replace(' ', ",").replace('\n', "\r\n"),
            format!("path1,path2,same\n{}", text.replace(' ', ",")),
            "0 a/1.jpg b/2.jpg\n1 a/1.jpg a/3.jpg\n".to_owned(),
            text.replace(" 0\n", " different\n").replace(" 1\n", " same\n"),
        ] {
            assert_eq!(parse(&variant).unwrap(), expected, "{variant:?}");
        }
        // Any number of each kind, in folds of any numbers.
        let folded = parse("a,b,1,7\na,c,0,7\nb,c,0,9\na,d,1,9\nb,d,1,9\n").unwrap();
        assert!(folded.folded);
        assert_eq!(folded.pairs.iter().map(|pair| pair.fold).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
        let spaced = parse("Ada L/1.jpg\tAda L/2.jpg\t1\nAda L/1.jpg\tBo/1.jpg\t0\n").unwrap();
        assert_eq!(spaced.images[0], ImageName::Path("Ada L/1.jpg".into()));
        for (text, line) in
            [("a b 1\na b\n", 2), ("a b 1\na c 0 2\n", 2), ("a b 1\na c maybe\n", 2), ("a b 1 x\n", 1)]
        {
            match parse(text) {
                Err(EvalError::List { line: found, .. }) => assert_eq!(found, line, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        mutations::survived(text.as_bytes(), 1000, |bytes| drop(parse(&String::from_utf8_lossy(bytes))));
    }

    #[test]
    fn lists_of_any_bytes_are_survived() {
        mutations::survived(b"2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t3\t4\nC\t3\tA\t2\n", 2000, |bytes| {
            drop(parse(&String::from_utf8_lossy(bytes)));
        });
    }

    #[test]
    fn images_without_a_face_take_their_pairs_with_them() {
        let all = parse("2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t3\t4\nC\t3\tA\t2\n").unwrap();
        let (rest, lost) = all.only(&[true, false, true, true, true]);
        assert_eq!((rest.images.len(), rest.pairs.len(), lost), (4, 2, 2));
        assert_eq!(rest.images[rest.pairs[1].first].person(), "C");
        assert_eq!(rest.pairs[1].fold, 1);
    }

    #[test]
    fn crops_come_in_two_sizes_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crop.png");
        let wide = RgbImage::from_fn(112, 112, |x, y| image::Rgb([x as u8, y as u8, 0]));
        wide.save(&path).unwrap();
        let crop = read_crop(&path).unwrap();
        assert_eq!(crop.as_rgb()[..3], [8, 0, 0]);
        crop.to_image().save(&path).unwrap();
        let narrow = read_crop(&path).unwrap();
        assert_eq!(narrow.as_rgb(), crop.as_rgb());
        assert!(crop.has_sides() && !narrow.has_sides());
        RgbImage::new(250, 250).save(&path).unwrap();
        assert!(matches!(read_crop(&path), Err(EvalError::NotAligned { width: 250, .. })));
        std::fs::write(&path, b"no image").unwrap();
        assert!(matches!(read_crop(&path), Err(EvalError::Image { .. })));
    }
}
