//! The `voisin` program: everything is in `voisin::cli`.

/// Gives memory back when a load is over, which the system's allocator keeps for the next one.
#[global_allocator]
static ALLOCATOR: voisin::native::Allocator = voisin::native::Allocator;

fn main() -> std::process::ExitCode {
    voisin::cli::main()
}
