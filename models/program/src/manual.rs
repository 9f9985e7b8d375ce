//! Man pages and shell completions of a program, made from its command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
pub use clap_complete::Shell;
use clap_complete::{generate, generate_to};

/// The option that each program takes alone, and hides: a folder such as `/usr/share`, in which man
/// pages and completions get the places where `man` and the shells look for them.
const OPTION: &str = "--write-manual";

/// Places of completions below the folder.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Writes the pages and returns true if the arguments of this process are `--write-manual DIR`.
pub fn write_if_asked(command: impl FnOnce() -> Command) -> io::Result<bool> {
    let mut arguments = std::env::args_os().skip(1);
    match [arguments.next(), arguments.next(), arguments.next()] {
        [Some(option), Some(folder), None] if option == OPTION => {
            write(command(), Path::new(&folder)).map(|()| true)
        }
        _ => Ok(false),
    }
}

/// Returns the completions of a shell.
pub fn completions(mut command: Command, shell: Shell) -> String {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn write(mut command: Command, folder: &Path) -> io::Result<()> {
    let man = folder.join("man/man1");
    fs::create_dir_all(&man)?;
    // First: completions add a command `help`, which needs no pages.
    clap_mangen::generate_to(command.clone(), man)?;
    let name = command.get_name().to_owned();
    for (shell, place) in COMPLETIONS {
        let place = folder.join(place);
        fs::create_dir_all(&place)?;
        generate_to(shell, &mut command, &name, place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let label = Command::new("label").about("Label images").arg(Arg::new("out").long("out"));
        let hidden = Command::new("inner").hide(true);
        let program = Command::new("tool").about("A tool").subcommands([label, hidden]);
        write(program, folder.path()).expect("written pages");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
        for name in [
            "bash-completion/completions/tool.bash",
            "zsh/site-functions/_tool",
            "fish/vendor_completions.d/tool.fish",
        ] {
            assert!(read(name).contains("label") && read(name).contains("out"), "{name}");
        }
        assert!(read("man/man1/tool.1").contains("tool\\-label(1)"));
        assert!(read("man/man1/tool-label.1").contains("Label images"));
        assert_eq!(fs::read_dir(folder.path().join("man/man1")).expect("pages").count(), 2);
    }
}
