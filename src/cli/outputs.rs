//! Outputs that must not replace an input, each other, or what the program keeps.

use std::path::Path;

use anyhow::Context;

use super::UsageError;
use super::results::is_standard_output;
use sphereface::file;
use sphereface::media::check_still_name;

/// Refuses an output that is one of the inputs.
pub fn refuse_inputs<'a>(
    outputs: &[(&str, &Path)],
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<(), UsageError> {
    for input in inputs {
        if let Some((flag, path)) = outputs.iter().find(|(_, path)| file::is_same(path, input)) {
            let path = path.display();
            return Err(UsageError(format!("{flag} {path} is also the input: choose another file")));
        }
    }
    Ok(())
}

/// Refuses outputs that would overwrite each other.
pub fn refuse_shared(outputs: &[(&str, &Path)]) -> Result<(), UsageError> {
    for (index, &(flag, path)) in outputs.iter().enumerate() {
        for &(other, before) in &outputs[..index] {
            if is_standard_output(path) && is_standard_output(before) {
                return Err(UsageError(format!(
                    "{other} and {flag} both write to standard output: give one of them a file"
                )));
            }
            if file::is_same(path, before) {
                let path = path.display();
                return Err(UsageError(format!(
                    "{other} and {flag} both write to {path}: choose another file for one of them"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses outputs that are files of the program's own in `folder`: those that are there already and hidden or in
/// folders of it, like the stills of a gallery. A gallery may also be the current folder, in which results lie.
pub fn refuse_own(outputs: &[(&str, &Path)], folder: &Path, what: &str) -> Result<(), UsageError> {
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    for (flag, path) in outputs {
        let Ok(whole) = path.canonicalize() else { continue };
        let Ok(inside) = whole.strip_prefix(&folder) else { continue };
        let is_hidden = inside.to_string_lossy().starts_with('.');
        if whole.is_file() && (is_hidden || inside.components().count() > 1) {
            return Err(UsageError(format!(
                "{flag} {} is a file of the {what} {}: choose another file",
                path.display(),
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Fails if an output cannot be written, before there is anything to write.
pub fn check_writable(outputs: &[(&str, &Path)]) -> anyhow::Result<()> {
    outputs.iter().try_for_each(|(flag, path)| {
        file::check(path).with_context(|| format!("{flag} {} cannot be written", path.display()))
    })
}

/// Checks before the work that contact sheets can be written.
pub fn check_sheets(sheets: &[(&str, &Path)]) -> anyhow::Result<()> {
    for (_, path) in sheets {
        check_still_name(path).map_err(|error| UsageError(error.to_string()))?;
    }
    check_writable(sheets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_gallery_are_refused_and_results_beside_its_people_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("Ada/stills")).unwrap();
        for name in ["Ada/stills/1.jpg", ".embeddings.pack", "results.csv"] {
            std::fs::write(at(name), "x").unwrap();
        }
        let refuse = |name: &str| refuse_own(&[("--csv", &at(name))], folder.path(), "gallery");
        assert!(refuse("Ada/stills/1.jpg").unwrap_err().0.contains("is a file of the gallery"));
        assert!(refuse(".embeddings.pack").is_err());
        assert!(refuse("results.csv").is_ok() && refuse("Ada/new.csv").is_ok());
    }
}
