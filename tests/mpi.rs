//! MPI jobs.
mod support;
#[test]
fn launches() {
    support::mpirun(2, std::path::Path::new("/bin/true"), &[], &[]).succeeds();
}
