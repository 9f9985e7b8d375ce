//! `cargo xtask setup`: fetches missing components of `.runtime/`. If none is missing, it needs no
//! network and changes nothing; an interrupted run never leaves a folder that looks complete.

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
use crate::{Usage, host};

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
            "setup takes --cpu or --cuda and names from {known}, not {other:?}"
        ))
        .into());
    }
    run(root, asked, names)
}

/// Fetches missing components in the build for this machine; complete ones of either build are
/// kept.
pub(crate) fn ensure_runtimes(root: &Path) -> Result<()> {
    run(root, None, &[])
}

/// Fetches missing components: the named ones, or all if `names` is empty.
fn run(root: &Path, asked: Option<Build>, names: &[String]) -> Result<()> {
    let runtime = root.join(".runtime");
    let fitting = if host::has_nvidia_driver() { Build::Cuda } else { Build::Cpu };
    if asked.is_none() && fitting == Build::Cuda && is_complete(&runtime, components(Build::Cpu)[0])
    {
        eprintln!(
            "setup: found an NVIDIA driver; `cargo xtask setup --cuda` replaces the CPU build of libtorch"
        );
    }
    if missing(&runtime, asked, fitting, names)?.is_empty() {
        eprintln!("setup: {} is complete", runtime.display());
        return Ok(());
    }
    fs::create_dir_all(&runtime).map_err(host::explain(&runtime))?;
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
            eprintln!("setup: replacing {}: {why}", component.name);
        }
        fetch(&python, &runtime, component)
            .with_context(|| format!("setting up {}", component.title))?;
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

/// Returns true if the variable of the component names a copy of the user.
fn has_own(runtime: &Path, component: &Component) -> Result<bool> {
    let Some((variable, path)) = component.variable else { return Ok(false) };
    let Some(named) = std::env::var_os(variable).map(PathBuf::from) else { return Ok(false) };
    if named == runtime.join(path) {
        return Ok(false);
    }
    ensure!(
        named.exists(),
        "{variable} names {}, which does not exist; correct it or unset it",
        named.display()
    );
    Ok(true)
}

/// Takes the lock of `.runtime/`, waiting for another setup.
fn lock(runtime: &Path) -> Result<File> {
    let path = runtime.join(".lock");
    let file = File::create(&path).map_err(host::explain(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: waiting for another setup in this repository");
            file.lock().map_err(host::explain(&path))?;
        }
        Err(TryLockError::Error(error)) => return Err(host::explain(&path)(error)),
    }
    Ok(file)
}

/// Checks platform, compiler and disk space before the download.
fn ensure_host(runtime: &Path, missing: &[&Component]) -> Result<()> {
    let variables: Vec<&str> =
        missing.iter().filter_map(|component| Some(component.variable?.0)).collect();
    ensure!(
        variables.is_empty() || host::is_supported(),
        "libtorch and ONNX Runtime can be fetched for x86-64 Linux with glibc only; install libtorch 2.11.0 and ONNX \
         Runtime 1.24 or newer, set LIBTORCH to the folder of libtorch and ORT_DYLIB_PATH to the library of ONNX \
         Runtime, and run again"
    );
    if variables.contains(&"LIBTORCH") {
        host::ensure_cxx()?;
    }
    host::ensure_free_space(runtime, missing.iter().map(|component| component.megabytes).sum())
}

/// Fetches one component: downloads and unpacks into a temporary folder, which is renamed at the
/// end.
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
        bail!("{error:#}, twice; check the proxy or mirror of pip and run again");
    }
    let start = Instant::now();
    let Unpacked { files, bytes } = unpacked?;
    (component.finish)(&tree)?;
    for kept in component.keeps {
        ensure!(
            tree.join(kept).exists(),
            "the wheels lack {kept}: xtask/src/component.rs does not fit its pins"
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
    fs::create_dir_all(&tree).map_err(host::explain(&tree))?;
    let mut sum = Unpacked::default();
    for path in wheels {
        let Unpacked { files, bytes } = wheel::unpack(&path, &tree, component.place)?;
        sum = Unpacked { files: sum.files + files, bytes: sum.bytes + bytes };
    }
    eprintln!("setup: {}: unpacked in {:.1} s", component.title, start.elapsed().as_secs_f64());
    Ok(sum)
}

/// Downloads the wheels of a component, or returns those of an interrupted run if they are
/// complete.
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
    // Each run has its own folder, since a pip of an interrupted run may still be writing.
    let fresh = partial.join(format!("download-{}", std::process::id()));
    fs::create_dir_all(&fresh).map_err(host::explain(&fresh))?;
    let wanted = count(component.wheels.len() as u64, "wheel");
    eprintln!("setup: {}: downloading {wanted} with pip", component.title);
    let start = Instant::now();
    python.download(&requirements, &fresh)?;
    fs::rename(&fresh, &folder).map_err(host::explain(&folder))?;
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

/// Installs Python packages into a folder of `.runtime/`, for `PYTHONPATH`.
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
    fs::create_dir_all(&runtime).map_err(host::explain(&runtime))?;
    let _lock = lock(&runtime)?;
    if stamp::check(&folder, &recipe) == InstallState::Complete {
        return Ok(folder);
    }
    let partial = runtime.join(format!(".partial-{name}"));
    let tree = partial.join("tree");
    remove(&partial)?;
    fs::create_dir_all(&tree).map_err(host::explain(&tree))?;
    eprintln!("setup: installing {} with pip", requirements.join(", "));
    let start = Instant::now();
    python.install(&requirements.join("\n"), &tree)?;
    publish(&runtime, name, &recipe)?;
    eprintln!("setup: Python packages in place ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(folder)
}

/// Stamps the finished tree, moves it to `name`, and removes temporary files.
fn publish(runtime: &Path, name: &str, recipe: &str) -> Result<()> {
    let partial = runtime.join(format!(".partial-{name}"));
    let (tree, folder) = (partial.join("tree"), runtime.join(name));
    stamp::write(&tree, recipe).map_err(host::explain(&tree))?;
    if folder.symlink_metadata().is_ok() {
        fs::rename(&folder, partial.join("old")).map_err(host::explain(&folder))?;
    }
    fs::rename(&tree, &folder).map_err(host::explain(&folder))?;
    remove(&partial)
}

/// Removes a folder to which a pip of an interrupted run may still be writing.
fn remove(folder: &Path) -> Result<()> {
    for _ in 0..10 {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(host::explain(folder)(error));
            }
            _ => return Ok(()),
        }
    }
    bail!(
        "{} cannot be removed because another process writes to it; stop the other pip and run again",
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
