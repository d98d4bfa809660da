//! Reading and writing stills.

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, RgbImage,
};

use super::MediaError;
use super::content::{Content, Cut, Still as Format, cut_jpeg, is_animated};
use super::output::Pending;

/// Quality of written JPEG files, of 100.
const JPEG_QUALITY: u8 = 92;

/// Larger files are not read as stills.
const LARGEST_FILE: u64 = 1 << 30;

/// Bytes that the pixels of any still may take.
const FREE_BYTES: u64 = 96 << 20;
/// Bytes that they may take beyond that per byte of the file, so that a small file cannot take a lot of
/// memory. Only pictures of a single colour compress better.
const BYTES_PER_BYTE: u64 = 256;
/// Bytes that the pixels of no still may exceed.
const MOST_BYTES: u64 = 2 << 30;

/// A still that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Still {
    /// Its pixels, upright.
    pub picture: RgbImage,
    /// A description of the missing part, if its file is truncated.
    pub damage: Option<String>,
    /// Whether its file is an [animation](super::is_animated), of which this is the first picture.
    pub animated: bool,
}

/// Reads an image file as 8-bit RGB, upright (its EXIF orientation is applied). The format is recognised by
/// content; of an animation the first picture is taken; transparent parts become black.
///
/// # Errors
/// When the file is missing, empty, a folder, unreadable, or not a jpg, png, webp, bmp, tiff, gif,
/// HEIC or AVIF image; when GStreamer lacks a decoder for the last two.
pub fn read_still(path: &Path) -> Result<RgbImage, MediaError> {
    open_still(path).map(|still| still.picture)
}

/// As [`read_still`], with a description of the missing part of a truncated JPEG file.
///
/// # Errors
/// As [`read_still`].
pub fn open_still(path: &Path) -> Result<Still, MediaError> {
    let mut bytes = Vec::new();
    let unreadable = |source| MediaError::Unreadable { path: path.to_owned(), source };
    open_input(path)?.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    still_of_bytes(path, &bytes)
}

/// As [`open_still`], for a file in memory; messages call it `path`.
///
/// # Errors
/// As [`read_still`], when it is not an image.
pub fn still_of_bytes(path: &Path, bytes: &[u8]) -> Result<Still, MediaError> {
    let bad = |reason: String| MediaError::BadImage { path: path.to_owned(), reason };
    let animated = is_animated(bytes);
    let whole = |picture| Still { picture, damage: None, animated };
    match Content::of(bytes) {
        Content::Still(Format::Heif) => read_heif(path, bytes).map(whole),
        Content::Still(Format::Foreign(name)) => Err(bad(format!("{name} is not read"))),
        Content::Still(Format::Jpeg) => {
            let (picture, rows) = decode(bytes).map_err(bad)?;
            Ok(Still { picture, damage: damage(cut_jpeg(bytes), rows), animated })
        }
        _ => decode(bytes).map(|(picture, _)| whole(picture)).map_err(bad),
    }
}

/// Width and height in pixels, as stored, of an image file in memory, without decoding it; messages call it
/// `path`.
///
/// # Errors
/// As [`read_still`], when it is not an image.
pub fn still_size(path: &Path, bytes: &[u8]) -> Result<[u32; 2], MediaError> {
    let bad = |reason: String| MediaError::BadImage { path: path.to_owned(), reason };
    let told = || ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder();
    match Content::of(bytes) {
        #[cfg(feature = "video")]
        Content::Still(Format::Heif) => super::heif::Main::read(bytes).map(|main| main.size()).map_err(bad),
        #[cfg(not(feature = "video"))]
        Content::Still(Format::Heif) => read_heif(path, bytes).map(|picture| picture.dimensions().into()),
        Content::Still(Format::Foreign(name)) => Err(bad(format!("{name} is not read"))),
        _ => told().map(|decoder| decoder.dimensions().into()).map_err(|error| bad(error.to_string())),
    }
}

/// Metadata of a still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillMetadata {
    /// Width and height in pixels, as stored.
    pub stored: [u32; 2],
    /// EXIF orientation, 1 to 8, which makes it upright.
    pub orientation: u8,
    /// Its XMP packet.
    pub xmp: Option<Vec<u8>>,
}

impl StillMetadata {
    /// The metadata of a jpg, png, webp, bmp, tiff, gif, HEIC or AVIF image in memory; `None` for anything
    /// else. The last two need the feature `video`.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        #[cfg(feature = "video")]
        if Content::of(bytes) == Content::Still(Format::Heif) {
            let super::heif::About { stored, orientation, xmp } = super::heif::About::read(bytes)?;
            return Some(Self { stored, orientation, xmp });
        }
        let mut decoder =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        let orientation = decoder.orientation().ok()?.to_exif();
        let xmp = decoder.xmp_metadata().ok().flatten();
        Some(Self { stored: [width, height], orientation, xmp })
    }

    /// Width and height in pixels, upright.
    pub fn upright(&self) -> [u32; 2] {
        let [width, height] = self.stored;
        if self.orientation >= 5 { [height, width] } else { [width, height] }
    }
}

/// The missing part, in words; `empty` is the share of rows at the end that have a single colour.
fn damage(cut: Option<Cut>, empty: f64) -> Option<String> {
    match cut? {
        Cut::Detail => Some("it is cut short, and coarser than it was".to_owned()),
        // Some programs leave out the last two bytes.
        Cut::Rows if empty == 0.0 => None,
        Cut::Rows => {
            Some(format!("it is cut short, the last {:.0} % of its rows are missing", 100.0 * empty))
        }
    }
}

/// HEIC and AVIF.
fn read_heif(path: &Path, bytes: &[u8]) -> Result<RgbImage, MediaError> {
    #[cfg(feature = "video")]
    {
        use super::heif::Main;
        use super::heif_decoder::{Failure, decode};
        let bad = |reason: String| MediaError::BadImage { path: path.to_owned(), reason };
        let main = Main::read(bytes).map_err(bad)?;
        decode(&main).map_err(|failure| match failure {
            Failure::NoDecoder => MediaError::NoStillDecoder {
                path: path.to_owned(),
                format: main.coding.name(),
                package: main.coding.package(),
            },
            Failure::Refused(reason) => bad(reason),
        })
    }
    #[cfg(not(feature = "video"))]
    {
        let _ = bytes;
        let reason = "HEIC and AVIF need the feature `video` of this program".to_owned();
        Err(MediaError::BadImage { path: path.to_owned(), reason })
    }
}

/// The picture, and the share of its stored rows at the end that have a single colour; or an error.
fn decode(bytes: &[u8]) -> Result<(RgbImage, f64), String> {
    let most = (FREE_BYTES + BYTES_PER_BYTE * bytes.len() as u64).min(MOST_BYTES);
    let mut limits = Limits::default();
    // Decoders may need the pixels twice, as coefficients of a progressive JPEG file are.
    limits.max_alloc = Some(2 * most);
    let open = || -> ImageResult<_> {
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        reader.limits(limits);
        reader.into_decoder()
    };
    let failed = |error: ImageError| error.to_string();
    let mut decoder = open().map_err(failed)?;
    if decoder.total_bytes() > most {
        let (width, height) = decoder.dimensions();
        return Err(format!("its {} bytes cannot hold {width}x{height} pixels", bytes.len()));
    }
    let orientation = decoder.orientation().map_err(failed)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let empty = empty_rows(&image);
    image.apply_orientation(orientation);
    Ok((opaque(image), empty))
}

fn empty_rows(image: &DynamicImage) -> f64 {
    let height = image.height().max(1);
    let bytes = image.as_bytes();
    let row = bytes.len() / height as usize;
    let pixel = usize::from(image.color().bytes_per_pixel());
    let Some(last) = bytes.get(bytes.len().saturating_sub(pixel)..) else { return 0.0 };
    let mut rows = bytes.rchunks_exact(row.max(1));
    let empty = rows.by_ref().take_while(|row| row.chunks_exact(pixel).all(|one| one == last)).count();
    empty as f64 / f64::from(height)
}

/// Without transparency.
fn opaque(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(rgb) => rgb,
        other if other.color().has_alpha() => {
            let rgba = other.into_rgba8();
            RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
                let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u16::from);
                image::Rgb([r, g, b].map(|c| ((c * a + 127) / 255) as u8))
            })
        }
        other => other.into_rgb8(),
    }
}

/// Writes an image in the format its extension names (jpg, jpeg, png, webp, bmp, tif, tiff, gif),
/// atomically: the name appears only once the file is complete.
///
/// # Errors
/// When the extension is unknown, or the file cannot be created or encoded.
pub fn write_still(path: &Path, image: &RgbImage) -> Result<(), MediaError> {
    let format = format_of_name(path)?;
    let failed = |reason: String| MediaError::ImageNotWritten { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .encode_image(image)
            .map_err(|e| failed(e.to_string())),
        _ => image.write_to(&mut Cursor::new(&mut bytes), format).map_err(|e| failed(e.to_string())),
    }?;
    let mut pending = Pending::create(path)?;
    pending.file().write_all(&bytes).map_err(|e| failed(e.to_string()))?;
    pending.publish()
}

/// Checks that [`write_still`] knows the format that the name of a file asks for.
///
/// # Errors
/// [`MediaError::UnknownImageFormat`].
pub fn check_still_name(path: &Path) -> Result<(), MediaError> {
    format_of_name(path).map(drop)
}

fn format_of_name(path: &Path) -> Result<ImageFormat, MediaError> {
    let format = ImageFormat::from_path(path).ok().filter(ImageFormat::writing_enabled);
    format.ok_or_else(|| MediaError::UnknownImageFormat(path.to_owned()))
}

/// Opens an input file, or returns in one sentence why it cannot be one.
pub(super) fn open_input(path: &Path) -> Result<fs::File, MediaError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => MediaError::NotFound(path.to_owned()),
        _ => MediaError::Unreadable { path: path.to_owned(), source },
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(MediaError::IsFolder(path.to_owned()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(MediaError::Empty(path.to_owned()));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 5) as u8, (y * 7) as u8, 90]))
    }

    #[test]
    fn every_format_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let picture = gradient(33, 21);
        for (extension, tolerance) in
            [("png", 0), ("bmp", 0), ("tiff", 0), ("webp", 0), ("jpg", 12), ("JPEG", 12)]
        {
            let path = folder.path().join(format!("picture.{extension}"));
            write_still(&path, &picture).unwrap();
            let back = read_still(&path).unwrap();
            assert_eq!(back.dimensions(), picture.dimensions());
            let worst =
                back.as_raw().iter().zip(picture.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= tolerance, "{extension}: off by {worst}");
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 6, "a temporary file was left: {left:?}");
    }

    #[test]
    fn stills_of_any_bytes_are_survived() {
        let picture = gradient(24, 16);
        for format in ["png", "gif", "bmp", "tiff", "webp"] {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::from_extension(format).unwrap()).unwrap();
            mutations::survived_by("still", &format!("plain.{format}"), bytes.get_ref(), 200);
        }
        // A screen of the largest size, and one picture of one pixel.
        let screen =
            b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
        mutations::survived_by("still", "screen-of-65535x65535.gif", screen, 50);
        let error = still_of_bytes("a.gif".as_ref(), screen).unwrap_err().to_string();
        assert!(error.contains("cannot hold 65535x65535 pixels"), "{error}");
    }

    #[test]
    fn exif_orientation_is_applied() {
        // Orientation 6: the stored picture must be turned 90 degrees clockwise.
        const EXIF: &[u8] = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turned.jpg");
        let mut stored = RgbImage::new(32, 16);
        stored
            .enumerate_pixels_mut()
            .for_each(|(x, _, p)| p.0 = if x < 16 { [250, 0, 0] } else { [0, 0, 250] });
        write_still(&path, &stored).unwrap();
        let plain = fs::read(&path).unwrap();
        let mut tagged = plain[..2].to_vec();
        tagged.extend([0xff, 0xe1]);
        tagged.extend(((EXIF.len() + 2) as u16).to_be_bytes());
        tagged.extend(EXIF);
        tagged.extend(&plain[2..]);
        mutations::survived_by("still", "turned.jpg", &tagged, 200);
        fs::write(&path, tagged).unwrap();
        let upright = read_still(&path).unwrap();
        assert_eq!(upright.dimensions(), (16, 32));
        assert!(upright.get_pixel(8, 4).0[0] > 200, "the left half goes to the top");
        assert!(upright.get_pixel(8, 28).0[2] > 200);
    }

    #[test]
    fn bad_stills_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("empty.jpg"), b"").unwrap();
        fs::write(at("text.png"), b"not a picture at all").unwrap();
        for (name, cause) in [
            ("missing.jpg", "does not exist"),
            ("empty.jpg", "zero bytes"),
            ("text.png", "not a readable image"),
            ("", "is a folder"),
        ] {
            let message = read_still(&at(name)).unwrap_err().to_string();
            assert!(message.contains(cause), "{name}: {message}");
        }
        let picture = gradient(4, 4);
        for (name, cause) in
            [("a.xyz", "no extension"), ("a", "no extension"), ("none/a.png", "does not exist")]
        {
            let message = write_still(&at(name), &picture).unwrap_err().to_string();
            assert!(message.contains(cause), "{name}: {message}");
        }
    }
}
