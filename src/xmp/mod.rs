//! Named faces in photos, as photo software stores them in XMP: read from and written to sidecars and JPEG
//! files, and read from the packets inside PNG, TIFF, WebP, GIF, HEIC and AVIF files.
//!
//! Two schemes are in use, and both are read and written:
//!
//! - *Regions of the Metadata Working Group* (MWG guidelines 2.0, chapter 5; `mwg-rs`): Lightroom, digiKam,
//!   Picasa and others. An area is given by its centre and size as fractions of the picture, with the
//!   dimensions of the picture that they apply to.
//! - *Microsoft's people tags* (`MP`, `MPRI`, `MPReg`): Windows and digiKam. A rectangle is given by its top
//!   left corner and size as fractions of the picture.
//!
//! Both refer to the pixels as they are stored, before the EXIF orientation is applied. Some programs write
//! them relative to the picture as shown; [`Regions::frames`] returns what the dimensions allow.
//!
//! Picasa keeps its names in a list beside the photos, `.picasa.ini`, which is read too.

mod area;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod jpeg;
mod picasa;
mod read;
mod write;

pub use area::{Area, Frame};
pub use jpeg::embed;
pub use read::read;
pub use write::{NewRegion, write};

use std::path::{Path, PathBuf};

use crate::media;

const RDF: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";
const MWG: &str = "http://www.metadataworkinggroup.com/schemas/regions/";
const AREA: &str = "http://ns.adobe.com/xmp/sType/Area#";
const DIMENSIONS: &str = "http://ns.adobe.com/xap/1.0/sType/Dimensions#";
const MP: &str = "http://ns.microsoft.com/photo/1.2/";
const MPRI: &str = "http://ns.microsoft.com/photo/1.2/t/RegionInfo#";
const MPREG: &str = "http://ns.microsoft.com/photo/1.2/t/Region#";
const CAMERA_RAW: &str = "http://ns.adobe.com/camera-raw-settings/1.0/";
/// The mark of regions that this program has written, so that it may replace them.
const OWN: &str = "urn:sphereface:xmp:1#";

/// The scheme in which a region is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Regions of the Metadata Working Group.
    Mwg,
    /// Microsoft's people tags.
    Microsoft,
    /// Picasa's list.
    Picasa,
}

/// A face in a photo, as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// The person's name, if known.
    pub name: Option<String>,
    /// Its area.
    pub area: Area,
    /// Its scheme.
    pub scheme: Scheme,
    /// Whether this program has written it.
    pub ours: bool,
}

/// The faces in an XMP packet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Regions {
    /// The faces, in the order of the packet.
    pub faces: Vec<Region>,
    /// Width and height of the picture that the regions apply to, in its own unit.
    pub applied_to: Option<[f64; 2]>,
    /// The part of the stored picture that is shown, if the packet states one.
    pub crop: Option<Area>,
}

/// Why XMP cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XmpError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The text is not XML.
    #[error("this is not readable XMP: {0}")]
    Xml(#[from] roxmltree::Error),
    /// The text is XML, but holds no RDF.
    #[error("this is XML, but not XMP: it has no rdf:RDF element")]
    NoRdf,
    /// The existing regions belong to another picture.
    #[error(
        "its regions apply to a picture of {}x{}, and the photo has {}x{}: one of the two was cropped or replaced",
        .applied_to[0], .applied_to[1], .stored[0], .stored[1]
    )]
    OtherPicture {
        /// Width and height that the regions apply to.
        applied_to: [f64; 2],
        /// Width and height of the photo as stored, in pixels.
        stored: [u32; 2],
    },
    /// The file is not a JPEG file, or it is damaged.
    #[error("names are written into JPEG files only, and this is another format or damaged")]
    NotJpeg,
    /// The packet is too large for a JPEG file.
    #[error("the packet has {0} bytes, and a JPEG file holds {most}", most = jpeg::MOST_BYTES)]
    TooLarge(usize),
    /// The packet in a JPEG file has further parts that would no longer match.
    #[error("its packet {0}, and is not changed")]
    Fixed(&'static str),
    /// Regions written into the photo would be ignored because of its sidecar.
    #[error("the regions in its sidecar {} take precedence over those inside: write the names into the sidecar", .0.display())]
    Shadowed(PathBuf),
    /// Another program has written the photo in the meantime.
    #[error("it was changed while its faces were detected: try again")]
    Changed,
    /// Any of the above, in a named file.
    #[error("{}: {source}", .path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<XmpError>,
    },
}

impl XmpError {
    /// The same error with the name of its file. A name is added only once.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::In { .. } => self,
            other => Self::In { path: path.to_owned(), source: Box::new(other) },
        }
    }
}

/// The possible sidecars of a photo: `photo.jpg.xmp` (digiKam, darktable), then `photo.xmp` (Lightroom).
pub fn sidecars(photo: &Path) -> [PathBuf; 2] {
    let mut beside = photo.as_os_str().to_owned();
    beside.push(".xmp");
    [beside.into(), photo.with_extension("xmp")]
}

/// The sidecar of a photo, if there is one.
pub fn sidecar(photo: &Path) -> Option<PathBuf> {
    sidecars(photo).into_iter().find(|path| path.is_file())
}

/// Whether a path has the extension of a sidecar.
pub fn is_sidecar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xmp"))
}

/// Reads the text of a sidecar.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn read_sidecar(path: &Path) -> Result<String, XmpError> {
    crate::file::read_text(path).map_err(|source| XmpError::Read { path: path.to_owned(), source })
}

/// The text of the packet in a photo, if there is one.
pub fn embedded(metadata: &media::StillMetadata) -> Option<String> {
    let bytes = metadata.xmp.as_deref()?;
    // Packets end with padding for changes, and some programs add a zero byte.
    let text = String::from_utf8_lossy(bytes);
    Some(text.trim_matches(|c: char| c == '\0' || c == '\u{feff}' || c.is_whitespace()).to_owned())
        .filter(|text| !text.is_empty())
}

/// The faces of a photo: those of its sidecar if there are any, otherwise those of the packet inside,
/// otherwise those of Picasa's list in its folder.
///
/// # Errors
/// When one of them cannot be read.
pub fn regions_of(photo: &Path, metadata: Option<&media::StillMetadata>) -> Result<Regions, XmpError> {
    if let Some(path) = sidecar(photo) {
        let text = read_sidecar(&path)?;
        let regions = read(&text).map_err(|error| error.in_file(&path))?;
        if !regions.faces.is_empty() {
            return Ok(regions);
        }
    }
    if let Some(text) = metadata.and_then(embedded) {
        let regions = read(&text).map_err(|error| error.in_file(photo))?;
        if !regions.faces.is_empty() {
            return Ok(regions);
        }
    }
    picasa::beside(photo)
}
