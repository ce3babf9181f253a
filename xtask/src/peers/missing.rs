//! What cannot be had on this machine, and which tests need it.
//!
//! Some peers are named in the names of their tests. Others are used by whole
//! files, and nobody has to keep a list of these: a peer is reached by its
//! environment variable, so that a file of tests needs what it reads itself
//! or what a module of the tests' library, which it uses, does.

use std::{collections::BTreeSet, fmt, fs, path::Path};

use anyhow::{Context, Result};

use crate::cache::checkout;

/// What cannot be had, and why.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    tests: Tests,
    reason: String,
}

/// The tests that cannot run without it.
#[derive(Clone, Copy, Debug)]
enum Tests {
    /// Those with this word in their names.
    Named(&'static str),
    /// Files that use the peer that this environment variable names.
    Using(&'static str),
}

impl Missing {
    pub(crate) fn named(word: &'static str, reason: &str) -> Self {
        Self { tests: Tests::Named(word), reason: reason.to_owned() }
    }

    pub(crate) fn using(variable: &'static str, reason: &str) -> Self {
        Self { tests: Tests::Using(variable), reason: reason.to_owned() }
    }

    /// The word by which the test runner leaves its tests out.
    pub(crate) fn word(&self) -> Option<&'static str> {
        match self.tests {
            Tests::Named(word) => Some(word),
            Tests::Using(_) => None,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tests {
            Tests::Named(word) => write!(formatter, "tests with `{word}` in their names")?,
            Tests::Using(variable) => write!(formatter, "files of tests that use {variable}")?,
        }
        write!(formatter, " need: {}", self.reason)
    }
}

/// A file of the tests with real peers.
#[derive(Debug)]
pub(crate) struct TestFile {
    variables: BTreeSet<String>,
    /// How many tests it has.
    pub(crate) tests: u64,
}

impl TestFile {
    /// Reads the file of a suite and what it uses of the tests' library.
    pub(crate) fn read(suite: &str) -> Result<Self> {
        let e2e = checkout().join("e2e");
        let text = read(&e2e.join("tests").join(format!("{suite}.rs")))?;
        let modules = modules(&e2e.join("src"))?;
        Ok(Self { variables: variables(&text, &modules), tests: text.matches("#[test]").count() as u64 })
    }

    /// Whether it cannot run without this.
    pub(crate) fn needs(&self, missing: &Missing) -> bool {
        matches!(missing.tests, Tests::Using(variable) if self.variables.contains(variable))
    }
}

/// The modules of the tests' library: names and texts.
fn modules(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut modules = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name != "lib" {
            modules.push((name, read(&path)?));
        }
    }
    Ok(modules)
}

/// The variables that a text names, and those of the modules that it uses.
fn variables(text: &str, modules: &[(String, String)]) -> BTreeSet<String> {
    let (mut open, mut seen) = (vec![text], BTreeSet::new());
    let mut found = BTreeSet::new();
    while let Some(text) = open.pop() {
        found.extend(text.split('"').filter(|word| word.starts_with("PINFOLD_E2E_")).map(str::to_owned));
        let used = modules.iter().filter(|(name, _)| uses(text, name));
        open.extend(used.filter(|(name, _)| seen.insert(name.as_str())).map(|(_, text)| text.as_str()));
    }
    found
}

/// Whether a text names the module in what it imports from the tests' library.
fn uses(text: &str, module: &str) -> bool {
    let imports = ["use crate::", "use pinfold_e2e::"].iter().flat_map(|start| text.split(start).skip(1));
    imports.filter_map(|import| import.split(';').next()).any(|import| names(import, module))
}

fn names(import: &str, module: &str) -> bool {
    let within = |before: &str| before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    import.match_indices(&format!("{module}::")).any(|(at, _)| !within(&import[..at]))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_what_it_and_its_modules_read() {
        let modules =
            [("kubo", "peer(\"PINFOLD_E2E_KUBO\")"), ("scenario", "use crate::{kubo::Kubo};"), ("wait", "")];
        let modules = modules.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let needs = |text: &str| variables(text, &modules).into_iter().collect::<Vec<_>>();
        assert_eq!(needs("use pinfold_e2e::{scenario::FETCH, wait::eventually};"), ["PINFOLD_E2E_KUBO"]);
        assert_eq!(needs("peer(\"PINFOLD_E2E_PEBBLE\")"), ["PINFOLD_E2E_PEBBLE"]);
        assert!(needs("use pinfold_e2e::{wait::eventually, mykubo::x}; use std::kubo::x;").is_empty());
    }

    #[test]
    fn real_files_need_what_they_are_about() {
        let needs = |suite: &str, variable| {
            TestFile::read(suite)
                .is_ok_and(|file| file.tests > 0 && file.needs(&Missing::using(variable, "")))
        };
        assert!(needs("kubo_pin", "PINFOLD_E2E_KUBO"));
        assert!(needs("crash_postgres", "PINFOLD_E2E_KUBO"));
        assert!(needs("acme", "PINFOLD_E2E_PEBBLE"));
        assert!(needs("helia", "PINFOLD_E2E_NODEJS"));
        assert!(!needs("traces", "PINFOLD_E2E_KUBO"));
        assert!(!needs("kubo_pin", "PINFOLD_E2E_NODEJS"));
    }
}
