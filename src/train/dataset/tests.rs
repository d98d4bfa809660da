//! Data sets on disk, complete and damaged.

use image::Rgb;

use super::*;
use crate::mutations;

fn config() -> DataConfig {
    DataConfig { exclude: Vec::new(), ..DataConfig::default() }
}

fn png(width: u32, shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(width, 112, Rgb([shade, 0, 0]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// People "a", "b", ... with that many images each, with a different shade per image.
fn folder(counts: &[usize]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut shade = 0;
    for (&count, name) in counts.iter().zip('a'..) {
        let person = folder.path().join(name.to_string());
        std::fs::create_dir(&person).unwrap();
        for i in 0..count {
            std::fs::write(person.join(format!("{i}.png")), png(if i == 0 { 96 } else { 112 }, shade))
                .unwrap();
            shade += 1;
        }
    }
    folder
}

/// A RecordIO pair of those images: (label, content after the header).
fn record(folder: &Path, images: &[(f32, Vec<u8>)]) -> PathBuf {
    let mut rec = Vec::new();
    let mut idx = String::new();
    let mut add = |number: usize, flag: u32, label: f32, labels: &[f32], image: &[u8]| {
        idx += &format!("{number}\t{}\n", rec.len());
        let mut content = flag.to_le_bytes().to_vec();
        content.extend(label.to_le_bytes());
        content.extend((number as u64).to_le_bytes());
        content.extend(0u64.to_le_bytes());
        labels.iter().for_each(|l| content.extend(l.to_le_bytes()));
        content.extend(image);
        rec.extend(0xced7_230au32.to_le_bytes());
        rec.extend((content.len() as u32).to_le_bytes());
        content.resize(content.len().next_multiple_of(4), 0);
        rec.extend(content);
    };
    let end = images.len() as f32 + 1.0;
    add(0, 2, 0.0, &[end, end + 1.0], &[]);
    for (i, (label, image)) in images.iter().enumerate() {
        add(i + 1, 0, *label, &[], image);
    }
    add(images.len() + 1, 2, 0.0, &[1.0, end], &[]);
    let path = folder.join("train.rec");
    std::fs::write(&path, rec).unwrap();
    std::fs::write(folder.join("train.idx"), idx).unwrap();
    path
}

fn refusal(path: &Path, config: &DataConfig) -> String {
    Dataset::open(path, config, 1).unwrap_err().to_string()
}

#[test]
fn a_folder_a_list_and_a_record_hold_the_same() {
    let folder = folder(&[2, 3]);
    let of_folder = Dataset::open(folder.path(), &config(), 1).unwrap();
    assert_eq!(of_folder.classes, ["a", "b"]);
    let labels: Vec<usize> = of_folder.items.iter().map(|(_, class)| *class).collect();
    assert_eq!(labels, [0, 0, 1, 1, 1]);
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "a/0.png 0\nb/0.png 1\na/1.png\t0\n\nb/1.png 1\nb/2.png 1\n").unwrap();
    let of_list = Dataset::open(&list, &config(), 1).unwrap();
    assert_eq!(of_list.classes, ["0", "1"]);
    let rows: Vec<usize> = of_list.items.iter().map(|(image, _)| image.row).collect();
    assert_eq!(rows, [0, 2, 1, 3, 4], "rows count lines, whatever the order of the classes");
    let images: Vec<_> = (0..5).map(|i| (if i < 2 { 0.0 } else { 1.0 }, png(112, i))).collect();
    let rec = record(folder.path(), &images);
    for path in [rec.as_path(), folder.path()] {
        let of_record = Dataset::open(path, &config(), 1).unwrap();
        assert_eq!(of_record.images, 5);
        let shades = |set: &Dataset| -> Vec<(u8, usize)> {
            let mut reader = set.reader().unwrap();
            set.items
                .iter()
                .map(|(i, class)| (reader.read(i).unwrap().get_pixel(50, 50)[0], *class))
                .collect()
        };
        assert_eq!(shades(&of_record), shades(&of_folder));
        assert_ne!(of_record.fingerprint(), of_folder.fingerprint());
    }
}

#[test]
fn images_that_hold_the_magic_number_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        record(folder.path(), &[(0.0, png(96, 7)), (0.0, png(96, 8)), (1.0, png(96, 9)), (1.0, png(96, 10))]);
    // Cut the content of record 1 in two, as if the magic number had been at that position.
    let index = std::fs::read_to_string(folder.path().join("train.idx")).unwrap();
    let offsets: Vec<usize> =
        index.lines().map(|line| line.split_once('\t').unwrap().1.parse().unwrap()).collect();
    let bytes = std::fs::read(&path).unwrap();
    let length = u32::from_le_bytes(bytes[offsets[1] + 4..][..4].try_into().unwrap()) as usize;
    let content = &bytes[offsets[1] + 8..][..length];
    let mut parts = bytes[..offsets[1]].to_vec();
    let cut = 61; // not a multiple of 4
    for (flag, part) in [(1u32, &content[..cut]), (3, &content[cut + 4..])] {
        parts.extend(0xced7_230au32.to_le_bytes());
        parts.extend((flag << 29 | part.len() as u32).to_le_bytes());
        parts.extend(part);
        parts.resize(parts.len().next_multiple_of(4), 0);
    }
    let moved = parts.len();
    parts.extend(&bytes[offsets[2]..]);
    std::fs::write(&path, parts).unwrap();
    let shift = |o: usize| if o >= offsets[2] { o - offsets[2] + moved } else { o };
    let index: String = offsets.iter().enumerate().map(|(i, &o)| format!("{i}\t{}\n", shift(o))).collect();
    std::fs::write(folder.path().join("train.idx"), index).unwrap();
    let set = Dataset::open(&path, &config(), 1).unwrap();
    let mut reader = RecordFile { path: path.clone() }.reader().unwrap();
    let mut expected = content[24..].to_vec();
    expected[cut - 24..cut - 20].copy_from_slice(&0xced7_230au32.to_le_bytes());
    assert_eq!(reader.image(1, offsets[1] as u64).unwrap(), expected);
    assert!(set.reader().unwrap().read(&set.items[1].0).is_ok());
}

#[test]
fn damage_is_told_in_one_sentence() {
    let folder = folder(&[2, 2, 0]);
    assert!(refusal(folder.path(), &config()).contains("identity 'c'"));
    std::fs::remove_dir(folder.path().join("c")).unwrap();
    std::fs::remove_file(folder.path().join("b/1.png")).unwrap();
    let error = refusal(folder.path(), &config());
    assert!(error.contains("identity 'b' has one image, and 0 more"), "{error}");
    let keep = DataConfig { small_classes: SmallClasses::Keep, ..config() };
    assert_eq!(Dataset::open(folder.path(), &keep, 1).unwrap().classes.len(), 2);
    let drop = DataConfig { small_classes: SmallClasses::Drop, ..config() };
    assert!(refusal(folder.path(), &drop).contains("only 1 of 2 identities are left"));
    let list = folder.path().join("list.txt");
    std::fs::write(&list, "a/0.png 0\na/1.png 0\nb/0.png 2\n").unwrap();
    assert!(refusal(&list, &config()).contains("labels up to 2, but no line has label 1"));
    std::fs::write(&list, "a/0.png 0\na/1.png\n").unwrap();
    assert!(refusal(&list, &config()).contains("line 2"));
    std::fs::write(&list, "\n").unwrap();
    assert!(refusal(&list, &config()).contains("no lines"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path(), &config()).contains("is not a data set"));
    assert!(refusal(&empty.path().join("x"), &config()).contains("cannot be read"));
}

#[test]
fn a_cut_off_record_file_is_told_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<_> = (0..4).map(|i| (f32::from(i / 2), png(112, i))).collect();
    let path = record(folder.path(), &images);
    let whole = std::fs::read(&path).unwrap();
    let index = std::fs::read_to_string(folder.path().join("train.idx")).unwrap();
    let offset: usize = index.lines().nth(4).unwrap().split_once('\t').unwrap().1.parse().unwrap();
    for length in [offset + 3, offset + 20, offset + 60, offset] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = refusal(&path, &config());
        assert!(error.contains("train.rec is damaged at record 4"), "{error}");
    }
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(folder.path().join("train.idx"), index.lines().take(3).collect::<Vec<_>>().join("\n"))
        .unwrap();
    assert!(refusal(&path, &config()).contains("announces 4 images, but the index has 2"));
    std::fs::write(folder.path().join("train.idx"), "0\t0\nx\n").unwrap();
    assert!(refusal(&path, &config()).contains("line 2"));
    std::fs::remove_file(folder.path().join("train.idx")).unwrap();
    assert!(refusal(&path, &config()).contains("train.idx cannot be read"));
}

#[test]
fn unreadable_images_are_named() {
    let folder = folder(&[2, 2]);
    let set = Dataset::open(folder.path(), &config(), 1).unwrap();
    std::fs::write(folder.path().join("a/0.png"), b"nothing").unwrap();
    RgbImage::new(250, 250).save(folder.path().join("a/1.png")).unwrap();
    let mut reader = set.reader().unwrap();
    assert!(reader.read(&set.items[0].0).unwrap_err().to_string().contains("0.png cannot be used"));
    assert!(reader.read(&set.items[1].0).unwrap_err().to_string().contains("250x250"));
    assert_eq!(reader.read(&set.items[2].0).unwrap().dimensions(), (96, 112));
}

#[test]
fn identities_are_excluded_and_held_out_by_name() {
    let folder = folder(&[2; 20]);
    std::fs::rename(folder.path().join("a"), folder.path().join(CASIA_LFW[1])).unwrap();
    let list = folder.path().join("exclude.txt");
    std::fs::write(&list, "b\n\n c \nnobody\n").unwrap();
    let exclude = vec![CASIA_LFW_NAME.to_owned(), list.display().to_string()];
    let config = DataConfig { exclude, holdout: 0.4, ..config() };
    let set = Dataset::open(folder.path(), &config, 1).unwrap();
    assert_eq!(set.excluded, 3);
    assert_eq!(set.classes.len() + set.held_out.len(), 17);
    assert!((2..14).contains(&set.held_out.len()), "{}", set.held_out.len());
    assert_eq!(Dataset::open(folder.path(), &config, 1).unwrap().classes, set.classes);
    assert_ne!(Dataset::open(folder.path(), &config, 2).unwrap().classes, set.classes);
    let (images, pairs) = set.held_out_pairs(100).unwrap();
    assert_eq!(pairs.len(), 2 * set.held_out.len());
    for pair in pairs {
        let person = |i: usize| match &images[i].source {
            Source::File(path) => path.parent().unwrap().to_owned(),
            Source::Record { .. } => unreachable!(),
        };
        assert_eq!(person(pair.first) == person(pair.second), pair.same);
        assert_ne!(images[pair.first], images[pair.second]);
    }
    std::fs::write(&list, "nobody\n").unwrap();
    assert!(refusal(folder.path(), &config).contains("none of the 1 identities"));
}

#[test]
fn a_teacher_has_a_row_for_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.npy");
    let write = |header: &str, data: &[u8]| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        std::fs::write(&path, bytes).unwrap();
    };
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n";
    let data: Vec<u8> = [3.0f32, 4.0, 0.0, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    write(header, &data);
    let teacher = Teacher::read(&path, 2).unwrap();
    assert_eq!((teacher.size(), teacher.row(0), teacher.row(1)), (2, &[0.6, 0.8][..], &[0.0, -1.0][..]));
    let refusal = |rows| Teacher::read(&path, rows).unwrap_err().to_string();
    assert!(refusal(3).contains("it has 2 rows, but the data set has 3 images"));
    write(header, &data[..12]);
    assert!(refusal(2).contains("3 values are not 2 rows of 2"));
    write(header, &[0; 16]);
    assert!(refusal(2).contains("row 0 is a zero vector"));
    write(&header.replace("<f4", "<i4"), &data);
    assert!(refusal(2).contains("type <i4"));
    write(&header.replace("(2, 2)", "(4,)"), &data);
    assert!(refusal(2).contains("two-dimensional"));
}

#[test]
fn a_first_record_that_ends_images_before_they_begin_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = record(folder.path(), &[(0.0, png(96, 1)), (1.0, png(96, 2))]);
    let mut bytes = std::fs::read(&path).unwrap();
    for end in [0.0f32, 0.5, -3.0, f32::NAN, f32::NEG_INFINITY] {
        bytes[8 + 24..][..4].copy_from_slice(&end.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(refusal(&path, &config()).contains("images end at"), "{end}");
    }
}

#[test]
fn data_sets_of_any_bytes_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<_> = (0..4u8).map(|n| (f32::from(n / 2), png(96, n))).collect();
    let path = record(folder.path(), &images);
    let index = std::fs::read(path.with_extension("idx")).unwrap();
    let whole = [&index, &b"\n"[..], &std::fs::read(&path).unwrap()].concat();
    mutations::survived_by("recordio", "four-images", &whole, 400);
    let list = b"a/0.png 0\nb/0.png 1\na/1.png\t0\n\nb/1.png 1\n";
    mutations::survived_by("training_list", "four-images", list, 200);
}

#[test]
fn teachers_of_any_bytes_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teacher.npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }\n";
    let array = |header: &str| {
        let length = (header.len() as u16).to_le_bytes();
        [&b"\x93NUMPY\x01\x00"[..], &length, header.as_bytes(), &[1; 16]].concat()
    };
    std::fs::write(&path, array(&header.replace("(2, 2)", "(2, 18446744073709551615)"))).unwrap();
    assert!(Teacher::read(&path, 2).unwrap_err().to_string().contains("are not 2 rows of"));
    mutations::survived_by("training_teacher", "two-rows.npy", &array(header), 400);
}
