//! Storage of the analyses: in the folder of the library, or as objects in a bucket (S3 or compatible).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::LibraryError;
use crate::analysis::Analysis;
use crate::file;

/// Name of the folder of analyses in that of a library.
const FOLDER: &str = "analyses";

/// The analyses of a library by name.
#[derive(Debug)]
pub(super) struct Analyses {
    /// Their folder, or the folder in which they are made before they are uploaded.
    folder: PathBuf,
    #[cfg(feature = "s3")]
    bucket: Option<bucket::Bucket>,
}

impl Analyses {
    /// The analyses in the folder of a library, which is created if it is missing.
    pub fn in_library(library: &Path) -> Result<Self, LibraryError> {
        Self::in_folder(library.join(FOLDER))
    }

    /// The analyses in a folder, which is created if it is missing.
    pub fn in_folder(folder: PathBuf) -> Result<Self, LibraryError> {
        fs::create_dir_all(&folder).map_err(|source| LibraryError::Write { path: folder.clone(), source })?;
        Ok(Self {
            folder,
            #[cfg(feature = "s3")]
            bucket: None,
        })
    }

    /// The analyses in the bucket at an address, `s3://BUCKET/FOLDER`. They are made in the folder of a
    /// library, one at a time.
    pub fn at(library: &Path, address: &str, runtime: &Handle) -> Result<Self, LibraryError> {
        #[cfg(feature = "s3")]
        {
            Ok(Self {
                bucket: Some(bucket::Bucket::open(address, runtime.clone())?),
                ..Self::in_library(library)?
            })
        }
        #[cfg(not(feature = "s3"))]
        {
            let _ = (library, runtime);
            Err(LibraryError::Request(format!("{address}: this program was built without the feature `s3`")))
        }
    }

    /// The path at which an analysis of that name is written, before it is [kept](Self::keep).
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Keeps the analysis that was written at its [path](Self::path).
    pub fn keep(&self, name: &str) -> Result<(), LibraryError> {
        #[cfg(feature = "s3")]
        if let Some(bucket) = &self.bucket {
            let path = self.path(name);
            let read = |source| LibraryError::Read { path: path.clone(), source };
            bucket.put(name, fs::read(&path).map_err(read)?)?;
            // The file is made again when it is needed.
            let _ = fs::remove_file(&path);
        }
        let _ = name;
        Ok(())
    }

    /// Writes and keeps an analysis.
    pub fn write(&self, name: &str, analysis: &Analysis) -> Result<(), LibraryError> {
        analysis.write(&self.path(name))?;
        self.keep(name)
    }

    /// The analysis of that name; `None` if there is none.
    pub fn read(&self, name: &str) -> Result<Option<Analysis>, LibraryError> {
        let path = self.path(name);
        #[cfg(feature = "s3")]
        if let Some(bucket) = &self.bucket {
            let Some(bytes) = bucket.get(name)? else { return Ok(None) };
            let write = |source| LibraryError::Write { path: self.folder.clone(), source };
            let mut copy = tempfile::NamedTempFile::new_in(&self.folder).map_err(write)?;
            io::Write::write_all(&mut copy, &bytes).map_err(write)?;
            return Ok(Some(Analysis::read(copy.path())?));
        }
        match path.try_exists() {
            Ok(false) => Ok(None),
            _ => Ok(Some(Analysis::read(&path)?)),
        }
    }

    /// Removes an analysis, if it exists.
    pub fn remove(&self, name: &str) -> Result<(), LibraryError> {
        #[cfg(feature = "s3")]
        if let Some(bucket) = &self.bucket {
            bucket.remove(name)?;
        }
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(LibraryError::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// Names of analyses in the folder that were begun and not finished, or that wait for others of the same
    /// file.
    pub fn unfinished(&self) -> impl Iterator<Item = (String, fs::Metadata)> {
        let entries: Option<io::Result<Vec<fs::DirEntry>>> =
            fs::read_dir(&self.folder).ok().map(Iterator::collect);
        let entries = entries.and_then(Result::ok).unwrap_or_default().into_iter();
        entries.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let unfinished = file::is_temporary(&name) || name.matches('.').count() > 1;
            Some((name, entry.metadata().ok()?)).filter(|_| unfinished)
        })
    }
}

#[cfg(feature = "s3")]
mod bucket {
    //! A bucket of an object store that speaks S3.

    use std::sync::Arc;

    use object_store::aws::AmazonS3Builder;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt};
    use tokio::runtime::Handle;
    use tokio_rustls::rustls::crypto;

    use crate::library::LibraryError;

    /// A folder of a bucket.
    #[derive(Debug)]
    pub(super) struct Bucket {
        store: Arc<dyn ObjectStore>,
        folder: Path,
        address: String,
        runtime: Handle,
    }

    impl Bucket {
        /// Opens `s3://BUCKET/FOLDER`. Region, credentials and endpoint are those of the environment
        /// (`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT`, `AWS_ALLOW_HTTP`,
        /// ...).
        pub fn open(address: &str, runtime: Handle) -> Result<Self, LibraryError> {
            let request = || {
                LibraryError::Request(format!(
                    "`{address}` is not the address of a bucket: write s3://BUCKET/FOLDER"
                ))
            };
            let rest = address.strip_prefix("s3://").ok_or_else(request)?;
            let (name, folder) = rest.split_once('/').unwrap_or((rest, ""));
            if name.is_empty() {
                return Err(request());
            }
            let folder = Path::parse(folder).map_err(|_| request())?;
            // Fails if another part of the program has already chosen one.
            let _ = crypto::ring::default_provider().install_default();
            let failed = |source| LibraryError::Bucket { address: address.to_owned(), source };
            let store = AmazonS3Builder::from_env().with_bucket_name(name).build().map_err(failed)?;
            Ok(Self { store: Arc::new(store), folder, address: address.to_owned(), runtime })
        }

        fn failed(&self, source: object_store::Error) -> LibraryError {
            LibraryError::Bucket { address: self.address.clone(), source }
        }

        /// Stores an object: all of it or nothing.
        pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), LibraryError> {
            let path = self.folder.clone().join(name);
            let put = self.runtime.block_on(self.store.put(&path, bytes.into()));
            put.map(drop).map_err(|source| self.failed(source))
        }

        /// The bytes of an object; `None` if there is none.
        pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, LibraryError> {
            let path = self.folder.clone().join(name);
            let got = self.runtime.block_on(async { self.store.get(&path).await?.bytes().await });
            match got {
                Ok(bytes) => Ok(Some(bytes.to_vec())),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(source) => Err(self.failed(source)),
            }
        }

        /// Removes an object, if it exists.
        pub fn remove(&self, name: &str) -> Result<(), LibraryError> {
            let path = self.folder.clone().join(name);
            match self.runtime.block_on(self.store.delete(&path)) {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(source) => Err(self.failed(source)),
            }
        }
    }
}
