//! The target of a path, as far as that matters to a writer.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The number of links followed before a path counts as a loop, as in Linux.
const MOST_LINKS: usize = 40;

/// The target of written bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A plain file, which may not exist yet, by its path after all links.
    Plain(PathBuf),
    /// An open descriptor of this process.
    Descriptor(u32),
    /// Any other existing file: a device, a FIFO.
    Special(PathBuf),
}

impl Place {
    /// Resolves `path`.
    ///
    /// # Errors
    /// When it is a folder, links form a loop, or a part of the path is not accessible.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            // Before the link is read, because the link of a descriptor is not a path.
            if let Some(number) = descriptor(&path) {
                return Ok(Self::Descriptor(number));
            }
            match std::fs::read_link(&path) {
                Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
                Err(_) => return Self::at_end(path),
            }
        }
        Err(io::Error::other("its symbolic links form a loop"))
    }

    fn at_end(path: PathBuf) -> io::Result<Self> {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"))
            }
            Ok(metadata) if metadata.is_file() => Ok(Self::Plain(path)),
            Ok(_) => Ok(Self::Special(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Plain(path)),
            Err(error) => Err(error),
        }
    }

    /// Opens a file that is not plain for writing.
    pub(super) fn open(&self) -> io::Result<File> {
        match self {
            #[cfg(unix)]
            Self::Descriptor(1) => duplicate(io::stdout()),
            #[cfg(unix)]
            Self::Descriptor(2) => duplicate(io::stderr()),
            // If it is a file, writing continues at its end.
            Self::Descriptor(number) => File::options().append(true).open(format!("/dev/fd/{number}")),
            Self::Special(path) => File::options().write(true).open(path),
            Self::Plain(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Whether both are the same file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Descriptor(a), Self::Descriptor(b)) => a == b,
            (Self::Plain(a), Self::Plain(b)) | (Self::Special(a), Self::Special(b)) => {
                let (a, b) = (whole(a), whole(b));
                a.is_some() && a == b && a.as_deref() != Some(Path::new("/dev/null"))
            }
            _ => false,
        }
    }
}

/// A duplicate of a descriptor of the program: neither its content nor its position in a file is lost, and a
/// socket works as well.
#[cfg(unix)]
fn duplicate(descriptor: impl std::os::fd::AsFd) -> io::Result<File> {
    Ok(descriptor.as_fd().try_clone_to_owned()?.into())
}

/// The absolute path without links.
fn whole(path: &Path) -> Option<PathBuf> {
    path.canonicalize()
        .ok()
        .or_else(|| Some(super::folder_of(path).canonicalize().ok()?.join(path.file_name()?)))
}

/// The number of the process's descriptor that a path names.
fn descriptor(path: &Path) -> Option<u32> {
    let parts: Option<Vec<&str>> = path
        .components()
        .map(|part| match part {
            Component::RootDir => Some("/"),
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let number = match parts?.as_slice() {
        ["/", "dev", "stdin"] => "0",
        ["/", "dev", "stdout"] => "1",
        ["/", "dev", "stderr"] => "2",
        ["/", "dev", "fd", number] => number,
        ["/", "proc", process, "fd", number]
            if *process == "self" || *process == std::process::id().to_string() =>
        {
            number
        }
        _ => return None,
    };
    number.parse().ok().filter(|_| cfg!(unix))
}
