//! Stills recognised by content, damaged ones, and those of phones; the messages of the commands about them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::RgbImage;
use sphereface::media::{MediaError, open_still, read_still};
use tempfile::TempDir;

use crate::media::clips::{H264, PICTURES, ffmpeg, tools};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

/// Runs the program in a folder.
fn sphereface(folder: &Path, arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sphereface")).current_dir(folder).args(arguments).output().unwrap()
}

/// The same with text arguments; returns the exit code and the output.
fn says(folder: &Path, arguments: &str) -> (Option<i32>, String) {
    let words: Vec<&OsStr> = arguments.split_whitespace().map(OsStr::new).collect();
    let output = sphereface(folder, &words);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn parts(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string());
    names.filter_map(Result::ok).filter(|name| name.ends_with(".part")).collect()
}

fn distance(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let pairs = a.as_raw().iter().zip(b.as_raw());
    pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.as_raw().len() as f64
}

/// A box of ISO base media.
fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    [&(content.len() as u32 + 8).to_be_bytes()[..], kind, &content].concat()
}

/// A box with version and flags 0.
fn full(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&[0; 4], &content.concat()])
}

/// The content of the first box of a kind, wherever it is.
fn content_of(file: &[u8], kind: &[u8; 4]) -> Vec<u8> {
    let at = file.windows(4).position(|window| window == kind).unwrap();
    let size = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    file[at + 4..at - 4 + size].to_vec()
}

/// A HEIC file of two adjacent tiles of 160x120, with the rotation `turn`.
fn heic(tiles: [&Path; 2], turn: u8) -> Vec<u8> {
    let coded = tiles.map(|tile| {
        let mp4 = tile.with_extension("mp4");
        ffmpeg(
            &format!(
                "-i {} -vf scale=out_range=full:out_color_matrix=bt709 -pix_fmt yuvj420p -c:v libx265 -x265-params \
                 log-level=0:info=0 -colorspace bt709 -crf 8 -tag:v hvc1",
                tile.display()
            ),
            &mp4,
        );
        fs::read(mp4).unwrap()
    });
    let [first, second] = [content_of(&coded[0], b"mdat"), content_of(&coded[1], b"mdat")];
    let entry = |item: u16, kind: &[u8; 4]| {
        boxed(b"infe", &[&[2, 0, 0, 0], &item.to_be_bytes(), &[0, 0], kind, &[0]])
    };
    let properties = boxed(
        b"ipco",
        &[
            &boxed(b"hvcC", &[&content_of(&coded[0], b"hvcC")]),
            &full(b"ispe", &[&160u32.to_be_bytes(), &120u32.to_be_bytes()]),
            &full(b"ispe", &[&320u32.to_be_bytes(), &120u32.to_be_bytes()]),
            &boxed(b"irot", &[&[turn]]),
            &boxed(b"colr", &[b"nclx", &[0, 1, 0, 1, 0, 1, 0x80]]),
        ],
    );
    let used = full(
        b"ipma",
        &[&3u32.to_be_bytes(), &[0, 1, 3, 3, 0x84, 5], &[0, 2, 3, 0x81, 2, 5], &[0, 3, 3, 0x81, 2, 5]],
    );
    let meta = |base: u32| {
        let grid = [&[0u8, 0, 0, 1][..], &320u16.to_be_bytes(), &120u16.to_be_bytes()].concat();
        let place = |item: u16, at: usize, length: usize| {
            let (at, length) = ((base as usize + at) as u32, length as u32);
            [&item.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1], &at.to_be_bytes(), &length.to_be_bytes()].concat()
        };
        let inline = [&1u16.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1], &0u32.to_be_bytes(), &8u32.to_be_bytes()];
        let places = boxed(
            b"iloc",
            &[
                &[1, 0, 0, 0, 0x44, 0],
                &3u16.to_be_bytes(),
                &inline.concat(),
                &place(2, 0, first.len()),
                &place(3, first.len(), second.len()),
            ],
        );
        full(
            b"meta",
            &[
                &full(b"hdlr", &[&[0; 4], b"pict", &[0; 13]]),
                &full(b"pitm", &[&1u16.to_be_bytes()]),
                &full(
                    b"iinf",
                    &[&3u16.to_be_bytes(), &entry(1, b"grid"), &entry(2, b"hvc1"), &entry(3, b"hvc1")],
                ),
                &full(b"iref", &[&boxed(b"dimg", &[&[0, 1, 0, 2, 0, 2, 0, 3]])]),
                &boxed(b"iprp", &[&properties, &used]),
                &boxed(b"idat", &[&grid]),
                &places,
            ],
        )
    };
    let kind = boxed(b"ftyp", &[b"heic", &[0; 4], b"mif1heic"]);
    let base = kind.len() + meta(0).len() + 8;
    [kind, meta(base as u32), boxed(b"mdat", &[&first, &second])].concat()
}

#[test]
fn heic_of_tiles_and_avif_are_read_and_turned() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let picture = RgbImage::from_fn(320, 120, |x, y| {
        image::Rgb([(x * 4 / 5) as u8, (y * 2) as u8, if (x / 40 + y / 40) % 2 == 0 { 200 } else { 40 }])
    });
    for (name, left) in [("left.png", 0), ("right.png", 160)] {
        image::imageops::crop_imm(&picture, left, 0, 160, 120).to_image().save(at(name)).unwrap();
    }
    for turn in 0..4 {
        let path = at("photo");
        fs::write(&path, heic([&at("left.png"), &at("right.png")], turn)).unwrap();
        let upright = match turn {
            1 => image::imageops::rotate270(&picture),
            2 => image::imageops::rotate180(&picture),
            3 => image::imageops::rotate90(&picture),
            _ => picture.clone(),
        };
        let off = distance(&read_still(&path).unwrap(), &upright);
        assert!(off < 4.0, "turned {turn} times: {off} apart");
    }
    let whole = fs::read(at("photo")).unwrap();
    for end in [30, 200, 400, whole.len() / 2, whole.len() - 1] {
        fs::write(at("cut"), &whole[..end]).unwrap();
        let error = read_still(&at("cut")).unwrap_err();
        assert!(matches!(error, MediaError::BadImage { .. }), "{end}: {error}");
    }
    picture.save(at("picture.png")).unwrap();
    let avif = "-c:v libaom-av1 -cpu-used 8 -still-picture 1 -crf 8 -vf scale=out_range=full:out_color_matrix=bt709 \
                -pix_fmt yuv420p -color_range pc -colorspace bt709 -f avif";
    ffmpeg(&format!("-i {} {avif}", at("picture.png").display()), &at("photo.jpg"));
    let off = distance(&read_still(&at("photo.jpg")).unwrap(), &picture);
    assert!(off < 4.0, "AVIF: {off} apart");
}

#[test]
fn formats_that_are_not_read_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("photo.jpg");
    fs::write(&path, b"\0\0\0\x0cJXL \r\n\x87\n and more").unwrap();
    let message = read_still(&path).unwrap_err().to_string();
    assert!(message.contains("JPEG XL") && message.contains("photo.jpg"), "{message}");
}

#[test]
fn half_a_jpeg_is_told_from_a_whole_one() {
    let folder = TempDir::new().unwrap();
    let whole = fs::read(sample("people/Ada/1.jpg")).unwrap();
    let path = folder.path().join("ada");
    for (share, damaged) in [(1.0, false), (0.8, true), (0.5, true)] {
        fs::write(&path, &whole[..(share * whole.len() as f64) as usize]).unwrap();
        let still = open_still(&path).unwrap();
        assert_eq!(still.damage.is_some(), damaged, "{share}: {:?}", still.damage);
    }
    // The two bytes of the end marker, which some programs omit.
    fs::write(&path, &whole[..whole.len() - 2]).unwrap();
    assert_eq!(open_still(&path).unwrap().damage, None);
}

#[test]
fn half_a_jpeg_is_not_enrolled_and_labelled_with_a_warning() {
    let folder = TempDir::new().unwrap();
    let whole = fs::read(sample("people/Ada/1.jpg")).unwrap();
    fs::write(folder.path().join("cut.jpg"), &whole[..whole.len() * 6 / 10]).unwrap();
    let (code, said) = says(folder.path(), "enroll Ada cut.jpg");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cut.jpg is not used: it is cut short"), "{said}");
    let (code, said) = says(folder.path(), "label cut.jpg -o out.jpg");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: cut.jpg: it is cut short"), "{said}");
}

#[test]
fn an_animation_is_said_to_be_used_as_its_first_picture() {
    let folder = TempDir::new().unwrap();
    let picture = read_still(&sample("people/Ada/1.jpg")).unwrap();
    let frame = image::DynamicImage::from(picture).into_rgba8();
    for (name, pictures) in [("moving.gif", 2), ("still.gif", 1)] {
        let mut encoder =
            image::codecs::gif::GifEncoder::new(fs::File::create(folder.path().join(name)).unwrap());
        for _ in 0..pictures {
            encoder.encode_frame(image::Frame::new(frame.clone())).unwrap();
        }
        drop(encoder);
        let gallery = format!("{name}.people");
        for command in [format!("label {name} -o out.png"), format!("enroll Ada {name} --gallery {gallery}")]
        {
            let (code, said) = says(folder.path(), &command);
            assert_eq!(code, Some(0), "{command}: {said}");
            let told = said.matches("it is an animation, of which only the first picture is used").count();
            assert_eq!(told, usize::from(pictures > 1), "{command}: {said}");
        }
    }
}

#[test]
fn a_still_by_any_name_is_labelled_as_a_still() {
    let folder = TempDir::new().unwrap();
    for name in ["ada.jfif", "ada", "ada.mp4"] {
        fs::copy(sample("people/Ada/1.jpg"), folder.path().join(name)).unwrap();
        let (code, said) = says(folder.path(), &format!("label {name} -o out.png"));
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(said.contains("1 face"), "{name}: {said}");
        let (code, said) = says(folder.path(), &format!("enroll Ada {name} --gallery {name}.people"));
        assert_eq!(code, Some(0), "{name}: {said}");
    }
}

#[test]
fn a_face_upside_down_is_hinted_at() {
    let folder = TempDir::new().unwrap();
    let upright = read_still(&sample("people/Ada/1.jpg")).unwrap();
    image::imageops::rotate180(&upright).save(folder.path().join("over.png")).unwrap();
    let (code, said) = says(folder.path(), "enroll Ada over.png");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("rotated by 180 degrees"), "{said}");
    let (code, said) = says(folder.path(), "label over.png -o out.png");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("rotated by 180 degrees"), "{said}");
}

#[test]
fn names_of_any_bytes_and_file_addresses_are_taken() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let name = OsStr::from_bytes(b"J\xf6rg 1.mp4");
    let clip = folder.path().join("plain.mp4");
    ffmpeg(&format!("{PICTURES} {H264}"), &clip);
    fs::rename(&clip, folder.path().join(name)).unwrap();
    let out = OsStr::from_bytes(b"\xf6ut.mp4");
    let run = |input: &OsStr| {
        let _ = fs::remove_file(folder.path().join(out));
        let output = sphereface(folder.path(), &[OsStr::new("label"), input, OsStr::new("-o"), out]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(folder.path().join(out).is_file());
    };
    run(name);
    run(OsStr::new(&format!("file://{}/J%F6rg%201.mp4", folder.path().display())));
    assert_eq!(parts(folder.path()), Vec::<String>::new());
}

#[test]
fn a_view_without_a_display_is_refused_and_leaves_nothing() {
    if !tools() {
        return;
    }
    let folder = TempDir::new().unwrap();
    ffmpeg(&format!("{PICTURES} {H264}"), &folder.path().join("clip.mp4"));
    let arguments = ["label", "clip.mp4", "-o", "out.mp4", "--view"];
    for more in [&[][..], &["--online"]] {
        for (name, value) in [("NONE", ""), ("DISPLAY", ":97"), ("WAYLAND_DISPLAY", "wayland-97")] {
            let output = Command::new(env!("CARGO_BIN_EXE_sphereface"))
                .current_dir(folder.path())
                .args(arguments)
                .args(more)
                .env_remove("DISPLAY")
                .env_remove("WAYLAND_DISPLAY")
                .env(name, value)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains("no window can be opened"), "{name}: {said}");
            assert_eq!(parts(folder.path()), Vec::<String>::new(), "{name}");
            assert!(!folder.path().join("out.mp4").exists(), "{name}");
        }
    }
}
