//! The `voisin` program: everything is in `voisin::cli`.

fn main() -> std::process::ExitCode {
    voisin::cli::main()
}
