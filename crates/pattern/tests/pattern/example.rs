//! The book's example, run as a user runs it.

use std::process::Command;

#[test]
fn every_request_is_booked_once() {
    let target = std::env::current_exe().unwrap();
    let example = target.parent().and_then(|deps| deps.parent()).unwrap().join("examples/dosomework");
    let output = Command::new(example).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("50 requests, 50 bookings, each booked once"), "{said}");
}
