//! What a data scientist does: a Python client generated from the contracts.

use std::path::Path;
use std::process::Command;

use clipmesh_e2e::sandbox::Sandbox;

#[tokio::test]
async fn a_generated_python_client_works_with_every_call() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.join("../..");
    let python = root.join(".deps/venv/bin/python");
    assert!(
        python.is_file(),
        "there is no Python client at {}: run `tools/setup test` first, as `make test` does",
        python.display()
    );

    let sandbox = Sandbox::builder().start().await.expect("the mesh starts");
    let address = sandbox.gateway_address().expect("the gateway listens");
    let output = Command::new(python)
        .arg(package.join("python/client_test.py"))
        .arg(address.to_string())
        .arg(root.join("proto"))
        .output()
        .expect("Python runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the Python tests pass: {stderr}");
    // So that a script which runs nothing is not taken for a success.
    assert!(stderr.contains("Ran 7 tests"), "all of them ran: {stderr}");
}
