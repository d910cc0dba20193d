//! A server from its start to its end.

mod emoji;
mod server;

use server::Server;

#[test]
fn a_server_starts_answers_and_ends_at_sigterm() {
    let mut server = Server::start(&[]);
    let health = server.get("/health");
    assert_eq!((health.status, health.text().as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(server.get("/ready").status, 200);
    assert_eq!(server.stop(), 0, "{}", server.log());
}
