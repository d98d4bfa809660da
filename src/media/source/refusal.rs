//! Why an input gave no picture, in words for the user, because GStreamer's messages do not name the cause.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::demuxed::PALETTE;
use crate::media::{Input, MediaError};

/// Time limit for a host to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// The error of an input that could not be opened, with its cause if it can be found.
pub(super) fn explained(input: &Input, error: MediaError) -> MediaError {
    let because = |reason: String| MediaError::NotDecodable { input: input.to_string(), reason };
    match (&error, input) {
        (MediaError::MissingElement(what), Input::Url(_)) if is_page(what) => {
            because("the address answered with a web page".to_owned())
        }
        (MediaError::MissingElement(what), _) if what.contains(PALETTE) => {
            because("pictures with a palette of 8 bits are not supported".to_owned())
        }
        (MediaError::MissingElement(what), _) if is_page(what) => because("it is a web page".to_owned()),
        (MediaError::NotDecodable { reason, .. }, _) if reason.contains("not-negotiated") => because(
            "its decoder gives pictures of a kind that cannot be converted, such as single fields or 16 bits per sample"
                .to_owned(),
        ),
        (MediaError::NotDecodable { .. }, Input::Url(url)) => unreachable(url).map_or(error, because),
        _ => error,
    }
}

/// Whether what GStreamer lacks is a decoder of web pages.
fn is_page(what: &str) -> bool {
    what.starts_with("text/html") || what.starts_with("application/xhtml")
}

/// The error of an attempt to connect to a host; `None` if it accepts.
fn unreachable(url: &str) -> Option<String> {
    let (host, port) = host_and_port(url)?;
    let Ok(addresses) = (host, port).to_socket_addrs() else {
        return Some(format!("the host {host} is not known"));
    };
    let mut failure = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, ANSWER_LIMIT) {
            Ok(_) => return None,
            Err(error) => failure = Some(error),
        }
    }
    Some(match failure?.kind() {
        ErrorKind::ConnectionRefused => format!("connection refused by {host}:{port}"),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => format!("{host}:{port} does not answer"),
        other => format!("{host}:{port} cannot be reached ({other})"),
    })
}

/// The host of an address, without brackets, and the port, given or usual.
fn host_and_port(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        "rtsp" => 554,
        "rtsps" => 322,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.filter(|port| !port.is_empty()).map_or(Some(usual), |port| port.parse().ok())?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found_in_every_address() {
        for (url, place) in [
            ("http://host/a.mp4", Some(("host", 80))),
            ("https://host", Some(("host", 443))),
            ("rtsp://me:pass@cam:8554/1", Some(("cam", 8554))),
            ("rtsps://cam?x=1:2", Some(("cam", 322))),
            ("http://[::1]:8080/a", Some(("::1", 8080))),
            ("http://[::1]/a", Some(("::1", 80))),
            ("http://host:x/", None),
            ("http:///a", None),
        ] {
            assert_eq!(host_and_port(url), place, "{url}");
        }
    }

    #[test]
    fn a_host_that_refuses_is_named() {
        assert_eq!(unreachable("http://127.0.0.1:9/a").unwrap(), "connection refused by 127.0.0.1:9");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(unreachable(&format!("http://{}/a", listener.local_addr().unwrap())), None);
    }
}
