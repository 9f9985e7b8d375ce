//! `cargo xtask setup`: fetches what is missing in `.runtime/`. Once all is there it needs no network and changes
//! nothing; a run that was cut off at any moment leaves nothing that a later one would take for complete.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::component::{Build, Component, components};
use crate::python::Python;
use crate::stamp::{self, InstallState};
use crate::wheel::{self, BrokenWheel, Unpacked};
use crate::{Usage, compiler, host};

/// `cargo xtask setup [--cpu | --cuda] [NAME…]`.
pub(crate) fn command(root: &Path, arguments: &[String]) -> Result<()> {
    let (asked, names) = match arguments {
        [option, names @ ..] if option == "--cpu" => (Some(Build::Cpu), names),
        [option, names @ ..] if option == "--cuda" => (Some(Build::Cuda), names),
        names => (None, names),
    };
    let known = components(Build::Cpu).map(|component| component.name);
    if let Some(other) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let known = known.join(", ");
        return Err(Usage(format!(
            "setup takes --cpu or --cuda and names of {known}, not {other:?}"
        ))
        .into());
    }
    run(root, asked, names)
}

/// Fetches what is missing, in the build that fits this machine; a complete one of either build is left as it is.
pub(crate) fn ensure_runtimes(root: &Path) -> Result<()> {
    run(root, None, &[])
}

/// Fetches the components of these names, or all where there are none.
fn run(root: &Path, asked: Option<Build>, names: &[String]) -> Result<()> {
    let runtime = root.join(".runtime");
    let fitting = if host::has_nvidia_driver() { Build::Cuda } else { Build::Cpu };
    if asked.is_none() && fitting == Build::Cuda && is_complete(&runtime, components(Build::Cpu)[0])
    {
        eprintln!(
            "setup: there is an NVIDIA driver; `cargo xtask setup --cuda` replaces the CPU build of libtorch"
        );
    }
    if missing(&runtime, asked, fitting, names)?.is_empty() {
        eprintln!("setup: nothing is missing in {}", runtime.display());
        return Ok(());
    }
    fs::create_dir_all(&runtime).map_err(|error| host::explain(&error, &runtime))?;
    let _lock = lock(&runtime)?;
    let missing = missing(&runtime, asked, fitting, names)?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure_host(&runtime, &missing)?;
    let python = Python::find()?;
    let start = Instant::now();
    for component in missing {
        if let InstallState::Damaged(why) =
            stamp::check(&runtime.join(component.name), &component.recipe())
        {
            eprintln!("setup: {} is replaced: {why}", component.name);
        }
        fetch(&python, &runtime, component)
            .with_context(|| format!("{} is not set up", component.title))?;
    }
    eprintln!("setup: done in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn is_complete(runtime: &Path, component: &Component) -> bool {
    stamp::check(&runtime.join(component.name), &component.recipe()) == InstallState::Complete
}

fn missing(
    runtime: &Path,
    asked: Option<Build>,
    fitting: Build,
    names: &[String],
) -> Result<Vec<&'static Component>> {
    let other = if fitting == Build::Cpu { Build::Cuda } else { Build::Cpu };
    let mut missing = Vec::new();
    for (wanted, other) in components(asked.unwrap_or(fitting)).into_iter().zip(components(other)) {
        if !names.is_empty() && !names.iter().any(|name| name == wanted.name) {
            continue;
        }
        let complete =
            is_complete(runtime, wanted) || (asked.is_none() && is_complete(runtime, other));
        if !has_own(runtime, wanted)? && !complete {
            missing.push(wanted);
        }
    }
    Ok(missing)
}

/// Whether the user has named a copy of their own.
fn has_own(runtime: &Path, component: &Component) -> Result<bool> {
    let Some((variable, path)) = component.variable else { return Ok(false) };
    let Some(named) = std::env::var_os(variable).map(PathBuf::from) else { return Ok(false) };
    if named == runtime.join(path) {
        return Ok(false);
    }
    ensure!(
        named.exists(),
        "{variable} names {}, which does not exist: correct it or unset it",
        named.display()
    );
    Ok(true)
}

/// Waits until no other setup works in `.runtime/`.
fn lock(runtime: &Path) -> Result<File> {
    let path = runtime.join(".lock");
    let file = File::create(&path).map_err(|error| host::explain(&error, &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: another one is at work here; waiting for it");
            file.lock().map_err(|error| host::explain(&error, &path))?;
        }
        Err(TryLockError::Error(error)) => return Err(host::explain(&error, &path)),
    }
    Ok(file)
}

/// What can be known to fail is known before the long download.
fn ensure_host(runtime: &Path, missing: &[&Component]) -> Result<()> {
    let variables: Vec<&str> =
        missing.iter().filter_map(|component| Some(component.variable?.0)).collect();
    ensure!(
        variables.is_empty() || host::is_supported(),
        "libtorch and ONNX Runtime are fetched for x86-64 Linux with glibc only: install libtorch 2.11.0 and ONNX \
         Runtime 1.24 or newer, set LIBTORCH to the folder of the one and ORT_DYLIB_PATH to the library of the other, \
         and run again"
    );
    if variables.contains(&"LIBTORCH") {
        compiler::ensure_cxx()?;
    }
    host::ensure_free_space(runtime, missing.iter().map(|component| component.megabytes).sum())
}

/// Fetches one component: downloads and unpacks beside its folder, then puts it there in one step.
fn fetch(python: &Python, runtime: &Path, component: &Component) -> Result<()> {
    let partial = runtime.join(format!(".partial-{}", component.name));
    let tree = partial.join("tree");
    let unpacked = match unpack(python, &partial, component) {
        Err(error) if error.is::<BrokenWheel>() => {
            eprintln!("setup: {error:#}; fetching it again");
            remove(&partial)?;
            unpack(python, &partial, component)
        }
        other => other,
    };
    if let Err(error) = &unpacked
        && error.is::<BrokenWheel>()
    {
        remove(&partial)?;
        bail!("{error:#}, twice: check the proxy or mirror that pip uses and run again");
    }
    let start = Instant::now();
    let Unpacked { files, bytes } = unpacked?;
    (component.finish)(&tree)?;
    for kept in component.keeps {
        ensure!(
            tree.join(kept).exists(),
            "the wheels hold no {kept}: xtask/src/component.rs does not fit its pins"
        );
    }
    publish(runtime, component.name, &component.recipe())?;
    let seconds = start.elapsed().as_secs_f64();
    let files = count(files, "file");
    eprintln!(
        "setup: {}: {files}, {} in place ({seconds:.1} s)",
        component.title,
        megabytes(bytes)
    );
    Ok(())
}

fn unpack(python: &Python, partial: &Path, component: &Component) -> Result<Unpacked> {
    let wheels = download(python, partial, component)?;
    let start = Instant::now();
    let tree = partial.join("tree");
    remove(&tree)?;
    fs::create_dir_all(&tree).map_err(|error| host::explain(&error, &tree))?;
    let mut sum = Unpacked::default();
    for path in wheels {
        let Unpacked { files, bytes } = wheel::unpack(&path, &tree, component.place)?;
        sum = Unpacked { files: sum.files + files, bytes: sum.bytes + bytes };
    }
    eprintln!("setup: {}: unpacked in {:.1} s", component.title, start.elapsed().as_secs_f64());
    Ok(sum)
}

/// The component's wheels, from pip or from a run that was cut off after pip had fetched them all.
fn download(python: &Python, partial: &Path, component: &Component) -> Result<Vec<PathBuf>> {
    let requirements = component.requirements();
    let folder = partial.join("wheels");
    if fs::read_to_string(folder.join("requirements.txt")).is_ok_and(|list| list == requirements) {
        let wheels = wheel::wheels_in(&folder)?;
        if wheels.len() == component.wheels.len() {
            return Ok(wheels);
        }
    }
    remove(partial)?;
    // A pip that outlived its xtask may still write, so each run has a folder of its own.
    let fresh = partial.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&fresh).map_err(|error| host::explain(&error, &fresh))?;
    let wanted = count(component.wheels.len() as u64, "wheel");
    eprintln!("setup: {}: downloading {wanted} with pip", component.title);
    let start = Instant::now();
    python.download(&requirements, &fresh)?;
    fs::rename(&fresh, &folder).map_err(|error| host::explain(&error, &folder))?;
    let wheels = wheel::wheels_in(&folder)?;
    let bytes = wheels
        .iter()
        .filter_map(|wheel| fs::metadata(wheel).ok())
        .map(|metadata| metadata.len())
        .sum();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("setup: {}: downloaded {} in {seconds:.1} s", component.title, megabytes(bytes));
    if wheels.len() != component.wheels.len() {
        bail!("pip fetched {} of {wanted}", wheels.len());
    }
    Ok(wheels)
}

/// Installs Python packages into a folder below `.runtime/`, to be named in `PYTHONPATH`.
pub(crate) fn ensure_python_packages(
    root: &Path,
    name: &str,
    python: &Python,
    requirements: &[&str],
) -> Result<PathBuf> {
    let runtime = root.join(".runtime");
    let folder = runtime.join(name);
    let recipe = format!("Python {}\n{}", python.version()?, requirements.join("\n"));
    if stamp::check(&folder, &recipe) == InstallState::Complete {
        return Ok(folder);
    }
    fs::create_dir_all(&runtime).map_err(|error| host::explain(&error, &runtime))?;
    let _lock = lock(&runtime)?;
    if stamp::check(&folder, &recipe) == InstallState::Complete {
        return Ok(folder);
    }
    let partial = runtime.join(format!(".partial-{name}"));
    let tree = partial.join("tree");
    remove(&partial)?;
    fs::create_dir_all(&tree).map_err(|error| host::explain(&error, &tree))?;
    eprintln!("setup: installing {} with pip", requirements.join(", "));
    let start = Instant::now();
    python.install(&requirements.join("\n"), &tree)?;
    publish(&runtime, name, &recipe)?;
    eprintln!("setup: Python packages in place ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(folder)
}

/// Stamps the finished tree and puts it in the place of `name`; removes all that was only needed on the way.
fn publish(runtime: &Path, name: &str, recipe: &str) -> Result<()> {
    let partial = runtime.join(format!(".partial-{name}"));
    let (tree, folder) = (partial.join("tree"), runtime.join(name));
    stamp::write(&tree, recipe).map_err(|error| host::explain(&error, &tree))?;
    if folder.symlink_metadata().is_ok() {
        fs::rename(&folder, partial.join("old")).map_err(|error| host::explain(&error, &folder))?;
    }
    fs::rename(&tree, &folder).map_err(|error| host::explain(&error, &folder))?;
    remove(&partial)
}

/// Removes a folder, where a pip that outlived its xtask may still add to it.
fn remove(folder: &Path) -> Result<()> {
    for _ in 0..10 {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                thread::sleep(Duration::from_millis(100))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(host::explain(&error, folder));
            }
            _ => return Ok(()),
        }
    }
    bail!(
        "{} cannot be removed as something keeps writing into it: end the other pip and run again",
        folder.display()
    )
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
