//! The `shardloom` program.

use shardloom::fault::memory::Careful;

#[global_allocator]
static MEMORY: Careful = Careful;

fn main() -> std::process::ExitCode {
    shardloom::cli::main()
}
