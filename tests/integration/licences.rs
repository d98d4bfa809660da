//! Every dependency has a licence that deny.toml allows: the rule of `cargo deny check licenses`, which need
//! not be installed for this.
#![cfg(feature = "serve")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// An SPDX expression, word by word.
struct Expression<'a> {
    words: Vec<&'a str>,
    allowed: &'a BTreeSet<String>,
}

impl Expression<'_> {
    /// Whether one of its alternatives is allowed; `None` when it is not an expression.
    fn any(&mut self) -> Option<bool> {
        let mut any = self.all()?;
        while self.words.last() == Some(&"OR") {
            self.words.pop();
            any |= self.all()?;
        }
        Some(any)
    }

    fn all(&mut self) -> Option<bool> {
        let mut all = self.one()?;
        while self.words.last() == Some(&"AND") {
            self.words.pop();
            all &= self.one()?;
        }
        Some(all)
    }

    fn one(&mut self) -> Option<bool> {
        let word = self.words.pop()?;
        if word == "(" {
            let inside = self.any();
            return inside.filter(|_| self.words.pop() == Some(")"));
        }
        let mut licence = word.to_owned();
        if self.words.last() == Some(&"WITH") {
            self.words.pop();
            licence = format!("{licence} WITH {}", self.words.pop()?);
        }
        Some(self.allowed.contains(&licence))
    }
}

/// Whether an expression allows use under one of the licences.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    // Before SPDX, alternatives were separated by a slash.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words = spaced.split_whitespace().rev().collect();
    let mut expression = Expression { words, allowed };
    expression.any() == Some(true) && expression.words.is_empty()
}

fn set(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let root = env!("CARGO_MANIFEST_DIR");
    let rules: toml::Table = std::fs::read_to_string(format!("{root}/deny.toml")).unwrap().parse().unwrap();
    let allowed = set(&rules["licenses"]["allow"]);
    let host = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    // Dependencies of other systems have not been downloaded everywhere.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version=1", "--filter-platform", host.trim()])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let clarified = |name: &str| {
        let all = rules["licenses"]["clarify"].as_array().unwrap();
        let one = all.iter().find(|one| one["name"].as_str() == Some(name))?;
        one["expression"].as_str().map(str::to_owned)
    };
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 300, "{} packages", packages.len());
    let mut refused = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let licence = clarified(name).or_else(|| package["license"].as_str().map(str::to_owned));
        if !licence.as_deref().is_some_and(|licence| is_allowed(licence, &allowed)) {
            refused.push(format!("{name}: {}", licence.as_deref().unwrap_or("no licence")));
        }
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source.starts_with("registry+")), "{name} is from {source:?}");
    }
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND BSL-1.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("MIT OR GPL-3.0 AND BSL-1.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("(MIT", false),
        ("MIT)", false),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
