//! Lets the programs find libtorch where it was linked from, and beside an installed program.

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
