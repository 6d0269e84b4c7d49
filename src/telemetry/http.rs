//! As much of HTTP as a scrape needs: one request a connection, its head in 8 KiB, no body.

use super::{Form, Snapshot};

/// A request's head is no longer than this.
pub const HEAD_MAX: usize = 8192;

/// Who may see what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// This machine's own: the live view, too, which names addresses.
    Local,
    /// Others: counts only.
    Network,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// All bytes of it.
    pub bytes: Vec<u8>,
    /// It is what was asked for.
    pub fine: bool,
}

/// True once all of a request's head is there.
pub fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|w| w == b"\r\n\r\n") || head.windows(2).any(|w| w == b"\n\n")
}

fn answer(status: &str, content: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let body = if with_body { body } else { "" };
    let common = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n";
    format!("HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {length}\r\n{allow}{common}\r\n{body}")
        .into_bytes()
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Refuses.
pub fn refuse(status: &str) -> Answer {
    Answer { bytes: answer(status, PLAIN, &format!("{status}\n"), true), fine: false }
}

/// A host that a web page of somebody else's cannot have as its own: an address, or this machine. Without that check, one that
/// points its name here could read the live view through a browser on this machine.
fn is_own_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

/// Answers a request whose head is whole. There is no snapshot yet while the run is being set up.
pub fn respond(head: &[u8], audience: Audience, snapshot: Option<&Snapshot>) -> Answer {
    let Ok(head) = std::str::from_utf8(head) else { return refuse("400 Bad Request") };
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return refuse("400 Bad Request");
    };
    if !version.starts_with("HTTP/1.") {
        return refuse("505 HTTP Version Not Supported");
    }
    let field = |name: &str| {
        head.lines().skip(1).take_while(|l| !l.is_empty()).find_map(|l| {
            let (field, value) = l.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let with_body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return refuse("405 Method Not Allowed"),
    };
    let Some(snapshot) = snapshot else { return refuse("503 Service Unavailable") };
    let (content, body) = match target.split('?').next().unwrap_or("") {
        "/metrics" => {
            let open = field("accept").is_some_and(|a| a.contains("application/openmetrics-text"));
            let form = if open { Form::OpenMetrics } else { Form::Prometheus };
            (form.content_type(), snapshot.page.text(form))
        }
        "/live" if audience == Audience::Network => return refuse("403 Forbidden"),
        "/live" if !field("host").is_none_or(is_own_host) => return refuse("403 Forbidden"),
        "/live" => ("application/json", serde_json::to_string(&snapshot.view).unwrap_or_default()),
        "/" => (PLAIN, "syntap: /metrics is for Prometheus, `syntap top` reads /live\n".to_owned()),
        _ => return refuse("404 Not Found"),
    };
    Answer { bytes: answer("200 OK", content, &body, with_body), fine: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Page;

    fn asked(head: &str, audience: Audience) -> String {
        let mut page = Page::default();
        page.counter("syntap_packets", "Seen.", &[], 5);
        let snapshot = Snapshot { page, ..Snapshot::default() };
        assert!(is_whole(head.as_bytes()), "{head}");
        String::from_utf8(respond(head.as_bytes(), audience, Some(&snapshot)).bytes).unwrap()
    }

    #[test]
    fn a_scrape_gets_the_form_that_it_asks_for() {
        let get = |accept: &str| {
            asked(
                &format!("GET /metrics HTTP/1.1\r\nHost: a:1\r\naCCept: {accept}\r\n\r\n"),
                Audience::Network,
            )
        };
        let open = get("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert!(open.contains("Content-Type: application/openmetrics-text; version=1.0.0"), "{open}");
        assert!(open.ends_with("syntap_packets_total 5\n# EOF\n"), "{open}");
        let older = get("*/*");
        assert!(older.contains("version=0.0.4") && older.ends_with("syntap_packets_total 5\n"), "{older}");
        let body = older.split_once("\r\n\r\n").unwrap().1;
        assert!(older.contains(&format!("Content-Length: {}\r\n", body.len())), "{older}");
        let head = asked("HEAD /metrics?x=1 HTTP/1.0\n\n", Audience::Network);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_names_addresses_is_for_this_machine_alone() {
        let live =
            |host: &str, audience| asked(&format!("GET /live HTTP/1.1\r\nHost: {host}\r\n\r\n"), audience);
        for host in ["127.0.0.1:9477", "[::1]:9477", "localhost"] {
            let said = live(host, Audience::Local);
            assert!(
                said.starts_with("HTTP/1.1 200 ") && said.contains("\"interfaces\":[]"),
                "{host}: {said}"
            );
        }
        for host in ["evil.example:9477", "", "localhost.evil.example"] {
            assert!(live(host, Audience::Local).starts_with("HTTP/1.1 403 "), "{host}");
        }
        assert!(live("127.0.0.1", Audience::Network).starts_with("HTTP/1.1 403 "));
    }

    #[test]
    fn before_anything_was_measured_nothing_is_shown() {
        for path in ["/metrics", "/live"] {
            let answer = respond(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes(), Audience::Local, None);
            assert!(answer.bytes.starts_with(b"HTTP/1.1 503 ") && !answer.fine, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_gets_an_answer(head: Vec<u8>, path in "[ -~]*") {
            let snapshot = Snapshot::default();
            for head in [head, format!("GET {path} HTTP/1.1\r\n\r\n").into_bytes()] {
                let answer = respond(&head, Audience::Network, Some(&snapshot));
                proptest::prop_assert!(answer.bytes.starts_with(b"HTTP/1.1 "));
                proptest::prop_assert!(!answer.bytes.windows(10).any(|w| w == b"\"interface"), "no live view");
            }
        }
    }

    #[test]
    fn what_is_no_request_for_a_page_is_refused() {
        for (head, status) in [
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", "404"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "505"),
            ("\r\n\r\n", "400"),
        ] {
            let said = asked(head, Audience::Local);
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {said}");
        }
    }
}
