//! Downloads a file of known content from a web server.
//!
//! The size and the SHA-256 of the content are known in advance, so neither the server nor the connection has
//! to be trusted. The data is kept in a partial file beside the target. An interrupted download continues
//! where it stopped, within one call or in a later one, if the server supports ranges.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;

/// Bytes read at once.
const BLOCK: usize = 1 << 16;

/// Redirections followed.
const MOST_REDIRECTS: u32 = 5;

/// A file to download.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// Its address, `https://...` or `http://...`.
    pub address: &'a str,
    /// Its length in bytes.
    pub len: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
    /// How long to wait for a server, and how often to try again.
    pub patience: Patience,
}

/// How long to wait for a server, and how often to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest silence of the server before the connection counts as broken.
    pub silence: Duration,
    /// Retries after an attempt that brought nothing. An attempt that brought some bytes does not count.
    pub retries: u32,
    /// Pause before the first retry; each later one is twice as long.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Duration::from_secs(30), retries: 4, pause: Duration::from_secs(1) }
    }
}

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A connection delivers, from this byte on.
    From(u64),
    /// That many bytes have arrived in all.
    Arrived(u64),
    /// The connection broke and is tried again, for this reason.
    Again(&'a str),
}

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The server does not have the file, or does not return it.
    #[error("{address}: the server answers {status}{}", Reason(.reason))]
    Refused {
        /// The address.
        address: String,
        /// The status of HTTP.
        status: u16,
        /// Its name, if it has one.
        reason: &'static str,
    },
    /// The address is not valid, or it fails in a way that no retry can help.
    #[error("{address} cannot be used: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The connection failed more often than the retries allow.
    #[error("{address}: {have} of {len} bytes arrived, then the connection failed ({reason}){}", Kept(.partial))]
    Broken {
        /// The address.
        address: String,
        /// Bytes that arrived.
        have: u64,
        /// Bytes of the whole file.
        len: u64,
        /// Why the last attempt failed.
        reason: String,
        /// The partial file, if there is one.
        partial: Option<PathBuf>,
    },
    /// The content is not the expected one.
    #[error(
        "{address} has other content than expected: its SHA-256 is {found}, and not {expected}; nothing was kept"
    )]
    Content {
        /// The address.
        address: String,
        /// The SHA-256 expected, in hexadecimal digits.
        expected: String,
        /// The SHA-256 found.
        found: String,
    },
    /// The content is longer than expected.
    #[error("{address} has other content than expected: it is longer than {len} bytes; nothing was kept")]
    TooLong {
        /// The address.
        address: String,
        /// Bytes expected.
        len: u64,
    },
    /// Another process is downloading to the same path.
    #[error("{} is in use by another download: wait for it, or choose another file", .0.display())]
    InUse(PathBuf),
    /// The partial file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The name of a status in brackets.
struct Reason<'a>(&'a str);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// The path of the partial file.
struct Kept<'a>(&'a Option<PathBuf>);

impl std::fmt::Display for Kept<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(path) => {
                write!(f, "; they are kept in {}, and the next attempt continues there", path.display())
            }
            None => Ok(()),
        }
    }
}

/// The outcome of an attempt that may be repeated.
enum Attempt {
    /// The whole file is there.
    Complete,
    /// A retry may succeed.
    Broken(String),
}

impl Download<'_> {
    /// Downloads the file to `partial`, which may already hold its beginning. On success, `partial` holds the
    /// whole file, and its content was checked. The caller renames it, or removes it.
    ///
    /// # Errors
    /// [`DownloadError`]. Except after [`DownloadError::Broken`], no partial file is left that this call
    /// made.
    pub fn to(&self, partial: &Path, on_step: &mut dyn FnMut(Step<'_>)) -> Result<(), DownloadError> {
        let wrong = |source| DownloadError::Write { path: partial.to_owned(), source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(partial)
            .map_err(wrong)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DownloadError::InUse(partial.to_owned())),
            // Some file systems have no locks.
            Err(TryLockError::Error(_)) => {}
        }
        let result = self.fill(&mut file, partial, on_step);
        match &result {
            Ok(()) | Err(DownloadError::Broken { partial: Some(_), .. }) => {}
            Err(_) => drop(std::fs::remove_file(partial)),
        }
        result
    }

    fn fill(
        &self,
        file: &mut File,
        partial: &Path,
        on_step: &mut dyn FnMut(Step<'_>),
    ) -> Result<(), DownloadError> {
        let wrong = |source| DownloadError::Write { path: partial.to_owned(), source };
        let agent = self.agent();
        let mut have = file.seek(SeekFrom::End(0)).map_err(wrong)?;
        if have > self.len {
            have = 0;
            file.set_len(0).map_err(wrong)?;
        }
        // A partial file of an earlier call may have any content.
        let mut is_ours = false;
        let (mut retries, mut pause) = (0, self.patience.pause);
        // If the server starts from the beginning, there is no progress until it is further than before.
        let mut furthest = have;
        loop {
            is_ours |= have == 0;
            let attempt = match have == self.len {
                true => Attempt::Complete,
                false => self.attempt(&agent, file, &mut have, partial, on_step)?,
            };
            let reason = match attempt {
                Attempt::Complete => {
                    let found = sha256(file).map_err(wrong)?;
                    if found == self.sha256 {
                        return file.sync_all().map_err(wrong);
                    }
                    if is_ours {
                        let (expected, found) = (hex(&self.sha256), hex(&found));
                        return Err(DownloadError::Content { address: self.address.into(), expected, found });
                    }
                    have = 0;
                    file.set_len(0).map_err(wrong)?;
                    on_step(Step::Again("the part kept from an earlier download is of another file"));
                    continue;
                }
                Attempt::Broken(reason) => reason,
            };
            if have > furthest {
                furthest = have;
                (retries, pause) = (0, self.patience.pause);
                on_step(Step::Again(&reason));
                std::thread::sleep(pause);
                continue;
            }
            if retries == self.patience.retries {
                let partial = (have > 0).then(|| partial.to_owned());
                let address = self.address.to_owned();
                return Err(DownloadError::Broken { address, have, len: self.len, reason, partial });
            }
            on_step(Step::Again(&reason));
            std::thread::sleep(pause);
            retries += 1;
            pause *= 2;
        }
    }

    fn agent(&self) -> Agent {
        let silence = Some(self.patience.silence);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirection must not lead from https to http.
            .https_only(self.address.starts_with("https:"))
            .max_redirects(MOST_REDIRECTS)
            .user_agent(concat!("sphereface/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        config.build().into()
    }

    /// One request for the missing bytes.
    fn attempt(
        &self,
        agent: &Agent,
        file: &mut File,
        have: &mut u64,
        partial: &Path,
        on_step: &mut dyn FnMut(Step<'_>),
    ) -> Result<Attempt, DownloadError> {
        let wrong = |source| DownloadError::Write { path: partial.to_owned(), source };
        let address = || self.address.to_owned();
        let mut request = agent.get(self.address);
        if *have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) if is_final(&error) => {
                return Err(DownloadError::Address { address: address(), reason: error.to_string() });
            }
            Err(error) => return Ok(Attempt::Broken(error.to_string())),
        };
        let status = response.status();
        let from = match status.as_u16() {
            200 => 0,
            206 => {
                let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
                match range.and_then(first_byte) {
                    Some(from) if from == *have => from,
                    _ => {
                        *have = 0;
                        file.set_len(0).map_err(wrong)?;
                        let reason = "the server sent a different part than requested";
                        return Ok(Attempt::Broken(reason.to_owned()));
                    }
                }
            }
            // The partial file cannot be continued: the file on the server is shorter.
            416 if *have > 0 => {
                *have = 0;
                file.set_len(0).map_err(wrong)?;
                return Ok(Attempt::Broken("the server has no such part".to_owned()));
            }
            408 | 429 | 500..=599 => return Ok(Attempt::Broken(format!("the server answers {status}"))),
            code => {
                let reason = status.canonical_reason().unwrap_or_default();
                return Err(DownloadError::Refused { address: address(), status: code, reason });
            }
        };
        *have = from;
        file.set_len(from).map_err(wrong)?;
        file.seek(SeekFrom::Start(from)).map_err(wrong)?;
        on_step(Step::From(from));
        let mut body = response.into_body().into_reader();
        let mut block = vec![0; BLOCK];
        loop {
            let count = match body.read(&mut block) {
                Ok(0) if *have == self.len => return Ok(Attempt::Complete),
                Ok(0) => return Ok(Attempt::Broken("the server closed the connection".to_owned())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Broken(error.to_string())),
            };
            if *have + count as u64 > self.len {
                return Err(DownloadError::TooLong { address: address(), len: self.len });
            }
            file.write_all(&block[..count]).map_err(wrong)?;
            *have += count as u64;
            on_step(Step::Arrived(*have));
        }
    }
}

/// Whether another attempt would end in the same way.
fn is_final(error: &ureq::Error) -> bool {
    use ureq::Error;
    matches!(
        error,
        Error::BadUri(_)
            | Error::Http(_)
            | Error::InvalidProxyUrl
            | Error::RedirectFailed
            | Error::RequireHttpsOnly(_)
            | Error::TooManyRedirects
    )
}

/// The first byte in a header of the form `bytes 100-199/200`.
fn first_byte(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.trim().parse().ok()
}

fn sha256(file: &mut File) -> io::Result<[u8; 32]> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&block[..count]),
        }
    }
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_range_is_read_and_nothing_else() {
        for (text, first) in [
            ("bytes 100-199/200", Some(100)),
            (" bytes  0-1/*", Some(0)),
            ("bytes */200", None),
            ("items 1-2/3", None),
            ("", None),
        ] {
            assert_eq!(first_byte(text), first, "{text}");
        }
        assert_eq!(hex(&[0, 10, 255]), "000aff");
    }
}
