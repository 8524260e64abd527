//! The `shardloom` program.

fn main() -> std::process::ExitCode {
    shardloom::cli::main()
}
