//! The inputs that a client may have opened.

use std::path::{Component, Path, PathBuf};

use super::error::{ConfigError, value};
use crate::media::Input;

/// Folders and prefixes of addresses to which the inputs of clients' sources are restricted.
#[derive(Debug, Clone, Default)]
pub struct Allowed(Vec<AllowedPlace>);

#[derive(Debug, Clone, PartialEq)]
enum AllowedPlace {
    Folder(PathBuf),
    Address(Address),
}

/// The relevant parts of an address.
#[derive(Debug, Clone, PartialEq)]
struct Address {
    scheme: String,
    /// Host and port.
    authority: String,
    path: Vec<String>,
}

impl Allowed {
    /// # Errors
    /// When one of them is neither a folder nor an address.
    pub(in crate::serve) fn new(places: &[String]) -> Result<Self, ConfigError> {
        let place = |text: &String| {
            let refused = |reason: &str| value("allow_inputs".into(), text, reason.into());
            if text.contains("://") {
                let address = Address::parse(text);
                return address
                    .map(AllowedPlace::Address)
                    .ok_or_else(|| refused("write it as rtsp://host/beginning"));
            }
            let path = Path::new(text);
            match path.is_absolute() {
                true => Ok(AllowedPlace::Folder(path.to_owned())),
                false => Err(refused("write a folder from / on, or an address")),
            }
        };
        places.iter().map(place).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a client may have `input` opened. Symbolic links are resolved, so none can lead out of a
    /// folder.
    pub fn allows(&self, input: &Input) -> bool {
        match input {
            Input::File(path) => {
                let Ok(path) = path.canonicalize() else { return false };
                let inside =
                    |folder: &PathBuf| folder.canonicalize().is_ok_and(|folder| path.starts_with(folder));
                self.0.iter().any(|place| matches!(place, AllowedPlace::Folder(folder) if inside(folder)))
            }
            Input::Url(url) => {
                let Some(address) = Address::parse(url) else { return false };
                self.0
                    .iter()
                    .any(|place| matches!(place, AllowedPlace::Address(allowed) if allowed.begins(&address)))
            }
            // A pipeline can read and write anything, and a camera belongs to the machine.
            Input::Pipeline(_) | Input::Webcam(_) | Input::Still(_) => false,
        }
    }
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        // Characters that another program might parse differently.
        if rest.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.is_empty() {
            return None;
        }
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let plain = |part: &String| {
            let mut components = Path::new(part).components();
            matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
                && !part.contains('%')
        };
        path.iter().all(plain).then(|| Self {
            scheme: scheme.to_ascii_lowercase(),
            authority: host.to_ascii_lowercase(),
            path,
        })
    }

    fn begins(&self, address: &Address) -> bool {
        self.scheme == address.scheme
            && self.authority == address.authority
            && address.path.starts_with(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_lies_below_an_allowed_place_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("clips/deep")).unwrap();
        std::fs::create_dir(root.join("clips-private")).unwrap();
        for file in ["clips/a.mp4", "clips/deep/b.mp4", "secret.mp4", "clips-private/c.mp4"] {
            std::fs::write(root.join(file), b"x").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.join("secret.mp4"), root.join("clips/link.mp4")).unwrap();
        let clips = root.join("clips");
        let allowed = Allowed::new(&[
            clips.to_str().unwrap().to_owned(),
            "rtsp://cams.lan/live".into(),
            "http://10.0.0.5:8080/".into(),
        ])
        .unwrap();
        let input = |text: &str| Input::parse(&text.replace('~', root.to_str().unwrap())).unwrap();
        for good in [
            "~/clips/a.mp4",
            "~/clips/deep/b.mp4",
            "file://~/clips/a.mp4",
            "rtsp://cams.lan/live",
            "rtsp://me:secret@cams.lan/live/1?x=y",
            "RTSP://CAMS.lan/live/2",
            "http://10.0.0.5:8080/any.mp4",
        ] {
            assert!(allowed.allows(&input(good)), "{good}");
        }
        for bad in [
            "~/secret.mp4",
            "~/clips/../secret.mp4",
            "~/clips/link.mp4",
            "~/clips-private/c.mp4",
            "~/clips/missing.mp4",
            "/etc/passwd",
            "/proc/self/environ",
            "rtsp://cams.lan/liveness",
            "rtsp://cams.lan/live/../admin",
            "rtsp://cams.lan/live/%2e%2e/admin",
            "rtsp://cams.lan.evil.com/live",
            "rtsp://cams.lan@evil.com/live",
            "rtsp://evil.com/?rtsp://cams.lan/live",
            "rtsp://cams.lan:9/live",
            "rtsp://evil.com\\@cams.lan/live",
            "http://cams.lan/live",
            "http://169.254.169.254/latest",
            "http://10.0.0.5/any.mp4",
            "webcam",
            "gst:filesrc location=/etc/passwd ! decodebin",
        ] {
            assert!(!allowed.allows(&input(bad)), "{bad}");
        }
        assert!(!Allowed::default().allows(&input("~/clips/a.mp4")), "nothing without leave");
        assert!(Allowed::new(&["clips".into()]).is_err());
        assert!(Allowed::new(&["http://".into()]).is_err());
    }
}
