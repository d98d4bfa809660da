//! The names of a photo's people in its XMP sidecar, or in the photo itself.

use std::path::{Path, PathBuf};

use super::LabelError;
use super::subscriber::{Ending, Subscriber};
use crate::engine::LabelledFrame;
use crate::file;
use crate::media::{self, StillMetadata};
use crate::xmp::{self, Area, NewRegion, XmpError};

/// Writes the faces that get a name into the sidecar of a photo, or into the photo. Subscribe it to a
/// [`LabelJob`](super::LabelJob) of that photo.
#[derive(Debug)]
pub struct Sidecar {
    path: PathBuf,
    /// The bytes of the photo at the beginning, if the names go into it.
    photo: Option<Vec<u8>>,
    /// The XMP of the sidecar, or else of the photo.
    text: Option<String>,
    metadata: StillMetadata,
    faces: Vec<NewRegion>,
}

impl Sidecar {
    /// The sidecar of `photo` at `path`; without one, the sidecar that the photo has, else `photo.jpg.xmp`
    /// beside `photo.jpg`. A new one begins with the XMP in the photo.
    ///
    /// # Errors
    /// When the photo or its XMP cannot be read, or the sidecar could not be written.
    pub fn of(photo: &Path, path: Option<&Path>) -> Result<Self, LabelError> {
        let metadata = match StillMetadata::of_bytes(&bytes_of(photo)?) {
            Some(metadata) => metadata,
            // For other formats, only the picture as shown is available.
            None => {
                let picture = media::read_still(photo)?;
                StillMetadata { stored: [picture.width(), picture.height()], orientation: 1, xmp: None }
            }
        };
        let found = xmp::sidecar(photo);
        let [default, _] = xmp::sidecars(photo);
        let path = path.map(Path::to_owned).or_else(|| found.clone()).unwrap_or(default);
        let there = if path.is_file() { Some(path.clone()) } else { found };
        let text = match &there {
            Some(there) => Some(xmp::read_sidecar(there)?),
            None => xmp::embedded(&metadata),
        };
        if let Some(text) = &text {
            xmp::read(text).map_err(|error| error.in_file(there.as_deref().unwrap_or(photo)))?;
        }
        file::check(&path).map_err(|source| XmpError::Write { path: path.clone(), source })?;
        Ok(Self { path, photo: None, text, metadata, faces: Vec::new() })
    }

    /// The packet inside a JPEG file. The file is replaced when the new one is complete.
    ///
    /// # Errors
    /// When the photo cannot be read or written, is not a JPEG file, has a packet that cannot be changed, or
    /// has a sidecar with regions, which would take precedence over those inside.
    pub fn inside(photo: &Path) -> Result<Self, LabelError> {
        let in_photo = |error: XmpError| error.in_file(photo);
        let bytes = bytes_of(photo)?;
        let metadata = StillMetadata::of_bytes(&bytes).ok_or_else(|| in_photo(XmpError::NotJpeg))?;
        let text = xmp::embedded(&metadata);
        if let Some(text) = &text {
            xmp::read(text).map_err(in_photo)?;
        }
        if let Some(sidecar) = xmp::sidecar(photo) {
            let text = xmp::read_sidecar(&sidecar)?;
            if !xmp::read(&text).map_err(|error| error.in_file(&sidecar))?.faces.is_empty() {
                return Err(in_photo(XmpError::Shadowed(sidecar)).into());
            }
        }
        xmp::embed(&bytes, text.as_deref().unwrap_or_default()).map_err(in_photo)?;
        file::check(photo).map_err(|source| XmpError::Write { path: photo.to_owned(), source })?;
        Ok(Self { path: photo.to_owned(), photo: Some(bytes), text, metadata, faces: Vec::new() })
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Subscriber for Sidecar {
    fn frame(&mut self, frame: &LabelledFrame) -> Result<(), LabelError> {
        let [width, height] = self.metadata.upright().map(f64::from);
        for face in &frame.faces {
            let Some(name) = face.name() else { continue };
            // The centre of the first pixel is at 0.
            let [x1, y1, x2, y2] = face.face.bbox.sides().map(|x| f64::from(x) + 0.5);
            let shown = Area::between([x1 / width, y1 / height], [x2 / width, y2 / height]);
            let nearest = face.identification.nearest.as_ref();
            self.faces.push(NewRegion {
                name: name.to_owned(),
                area: shown.stored(self.metadata.orientation),
                angle_deg: nearest.map_or(0.0, |nearest| f64::from(nearest.angle_deg)),
            });
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _: &Ending<'_>) -> Result<(), LabelError> {
        let StillMetadata { stored, orientation, .. } = self.metadata;
        let text = xmp::write(self.text.as_deref(), &self.faces, stored, orientation)
            .map_err(|error| error.in_file(&self.path))?;
        let content = match &self.photo {
            None => text.into_bytes(),
            Some(before) if *before != bytes_of(&self.path)? => {
                return Err(XmpError::Changed.in_file(&self.path).into());
            }
            Some(before) => xmp::embed(before, &text).map_err(|error| error.in_file(&self.path))?,
        };
        file::write(&self.path, &content)
            .map_err(|source| XmpError::Write { path: self.path.clone(), source })?;
        Ok(())
    }
}

fn bytes_of(photo: &Path) -> Result<Vec<u8>, XmpError> {
    std::fs::read(photo).map_err(|source| XmpError::Read { path: photo.to_owned(), source })
}
