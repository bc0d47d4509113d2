//! Servers of objects: real ones that others wrote (moto's S3, Azurite, Hadoop's HDFS), and one of our own that fails
//! on request, alone or in front of a real one.

use crate::harness::until;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A server in a process of its own.
pub(crate) struct Server {
    child: Option<Child>,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A variable that `./check` sets, or the reason why the test is skipped.
pub(crate) fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        eprintln!("skipped: {name} is not set (`./check` sets it)");
    }
    value
}

fn start(command: &mut Command, port: u16) -> Server {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let address = format!("127.0.0.1:{port}");
    until("a server's port", || TcpStream::connect(&address).is_ok());
    Server { child: Some(child), address }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// S3 by moto, with an empty bucket `crawl`.
pub(crate) fn s3() -> Option<Server> {
    let python = needed("DRAGNET_TEST_PYTHON")?;
    let port = free_port();
    let server = start(Command::new(python).args(["-m", "moto.server", "-p", &port.to_string()]), port);
    assert_eq!(ask(&server.address, "PUT", "/crawl", b"").0, 200);
    Some(server)
}

/// What a program needs to speak to it.
pub(crate) fn s3_env(address: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ACCESS_KEY_ID", "a".into()),
        ("AWS_SECRET_ACCESS_KEY", "b".into()),
        ("AWS_DEFAULT_REGION", "us-east-1".into()),
    ]
}

/// Speaks TLS for another server, with a certificate of its own making: arguments are the port, the other's address, and
/// the file that the certificate is written to.
const TLS: &str = r#"
import datetime, ipaddress, socket, ssl, sys, threading
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
port, behind, pem = int(sys.argv[1]), sys.argv[2].split(":"), sys.argv[3]
key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "test")])
day, here = datetime.timedelta(days=1), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    .not_valid_before(now - day).not_valid_after(now + day)
    .add_extension(x509.SubjectAlternativeName([here]), False).sign(key, hashes.SHA256()))
secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
open(pem, "wb").write(cert.public_bytes(serialization.Encoding.PEM))
open(pem + ".key", "wb").write(secret)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem, pem + ".key")
def pour(one, other):
    try:
        while data := one.recv(65536): other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError: pass
def serve(plain):
    try: client = context.wrap_socket(plain, server_side=True)
    except OSError: return
    server = socket.create_connection(behind)
    threading.Thread(target=pour, args=(client, server), daemon=True).start()
    pour(server, client)
listener = socket.create_server(("127.0.0.1", port))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

/// A server that speaks TLS for another, and the file of its certificate in `folder`.
pub(crate) fn tls(behind: &str, folder: &std::path::Path) -> Option<(Server, String)> {
    let python = needed("DRAGNET_TEST_PYTHON")?;
    let (port, pem) = (free_port(), folder.join("tls.pem").display().to_string());
    let server = start(Command::new(python).args(["-c", TLS, &port.to_string(), behind, &pem]), port);
    Some((server, pem))
}

/// Azure's blobs by Azurite, with an empty container `crawl`.
pub(crate) fn azure() -> Option<Server> {
    let (azurite, python) = (needed("DRAGNET_TEST_AZURITE")?, needed("DRAGNET_TEST_PYTHON")?);
    let port = free_port();
    let flags =
        ["--inMemoryPersistence", "--skipApiVersionCheck", "--loose", "--blobPort", &port.to_string()];
    let server = start(Command::new(azurite).args(flags), port);
    let make = format!("{AZURE_CLIENT}.create_container('crawl')");
    assert!(Command::new(python).args(["-c", &make, &server.address]).status().unwrap().success());
    Some(server)
}

/// Azurite's well-known account, by Azure's own client.
const AZURE_CLIENT: &str = "import sys; from azure.storage.blob import BlobServiceClient as B; \
    B.from_connection_string('DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=\
    Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://'+sys.argv[1]+'/devstoreaccount1')";

pub(crate) fn azure_env(address: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AZURE_STORAGE_USE_EMULATOR", "true".into()),
        ("AZURITE_BLOB_STORAGE_URL", format!("http://{address}")),
    ]
}

/// Puts an object into Azurite by Azure's own client.
pub(crate) fn azure_put(address: &str, key: &str, file: &std::path::Path) {
    let put =
        format!("{AZURE_CLIENT}.get_blob_client('crawl', sys.argv[2]).upload_blob(open(sys.argv[3], 'rb'))");
    let python = needed("DRAGNET_TEST_PYTHON").unwrap();
    let mut command = Command::new(python);
    assert!(command.args(["-c", &put, address, key]).arg(file).status().unwrap().success());
}

/// A PostgreSQL of `services/postgres.sh` that is one test's alone, as it is killed.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    pub(crate) url: String,
}

impl Postgres {
    pub(crate) fn new() -> Option<Postgres> {
        needed("DRAGNET_TEST_POSTGRES")?;
        let mut postgres = Postgres { folder: tempfile::tempdir().unwrap(), url: String::new() };
        postgres.script("start");
        let text = std::fs::read_to_string(postgres.folder.path().join("ports.env")).unwrap();
        postgres.url = text.lines().find_map(|line| line.strip_prefix("POSTGRES_URL=")).unwrap().to_owned();
        Some(postgres)
    }

    pub(crate) fn script(&self, verb: &str) {
        let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services/postgres.sh");
        let output = Command::new(program).arg(verb).arg(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "postgres.sh {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services/postgres.sh");
        let _ = Command::new(program).arg("stop").arg(self.folder.path()).output();
    }
}

/// One request with a body, and nothing of HTTP that it does not need. Returns status and body.
pub(crate) fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    let answer = forward(address, &head, body);
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (status, answer[at..].to_vec())
}

fn forward(address: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    // Some servers reset a connection that they have answered.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// What a server does wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It answers so, with this `Retry-After`, and does nothing.
    Status(u16, Option<&'static str>),
    /// It answers half and hangs up.
    Half,
    /// It does what was asked and hangs up.
    Silent,
}

/// A server that fails on request.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) address: String,
    /// What is done to the next requests of this method.
    faults: Arc<Mutex<VecDeque<(&'static str, Fault)>>>,
    pub(crate) requests: Arc<Mutex<u64>>,
}

/// What answers behind the faults.
#[derive(Clone)]
pub(crate) enum Behind {
    /// Files below a folder, with ranges and ETags.
    Files(PathBuf),
    /// Another server.
    Server(String),
    /// Another server, whose conditions on puts get lost on the way.
    Unconditional(String),
}

impl Faulty {
    pub(crate) fn new(behind: Behind) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let faulty = Faulty { address, faults: Arc::default(), requests: Arc::default() };
        let shared = faulty.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, behind) = (shared.clone(), behind.clone());
                std::thread::spawn(move || shared.answer(stream, &behind));
            }
        });
        faulty
    }

    /// Fails the next requests of a method, one after the other.
    pub(crate) fn fail(&self, method: &'static str, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults.iter().map(|fault| (method, *fault)));
    }

    pub(crate) fn forgive(&self) {
        self.faults.lock().unwrap().clear();
    }

    fn fault(&self, method: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|(of, _)| *of == method)?;
        faults.remove(at).map(|(_, fault)| fault)
    }

    /// One request a connection.
    fn answer(&self, mut stream: TcpStream, behind: &Behind) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut length, mut range, mut line) = (String::new(), 0, None, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            let lower = line.to_ascii_lowercase();
            let value = lower.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
            match lower.split(':').next().unwrap_or_default() {
                "content-length" => length = value.parse().unwrap_or(0),
                "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
                "connection" => continue,
                "if-none-match" if matches!(behind, Behind::Unconditional(_)) => continue,
                _ => {}
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        *self.requests.lock().unwrap() += 1;
        let method = head.split(' ').next().unwrap_or_default();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let fault = self.fault(method);
        if let Some(Fault::Status(status, retry_after)) = fault {
            let retry = retry_after.map_or(String::new(), |value| format!("Retry-After: {value}\r\n"));
            let said =
                format!("HTTP/1.1 {status} No\r\n{retry}Content-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(said.as_bytes());
            return;
        }
        let answer = match behind {
            Behind::Files(root) => file(root, method, path, range.as_deref()),
            Behind::Server(address) | Behind::Unconditional(address) => forward(address, &head, &body),
        };
        let much = match fault {
            Some(Fault::Silent) => 0,
            Some(Fault::Half) => answer.len() / 2,
            _ => answer.len(),
        };
        let _ = stream.write_all(&answer[..much]);
    }
}

fn file(root: &std::path::Path, method: &str, path: &str, range: Option<&str>) -> Vec<u8> {
    let Ok(bytes) = std::fs::read(root.join(path.trim_start_matches('/'))) else {
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    };
    let size = bytes.len();
    let asked = range.and_then(|range| range.split_once('-'));
    let (status, part, more) = match asked {
        Some((from, to)) => {
            let from: usize = from.parse().unwrap();
            let to = to.parse().map_or(size, |to: usize| to + 1).min(size);
            (206, from..to, format!("Content-Range: bytes {from}-{}/{size}\r\n", to - 1))
        }
        None => (200, 0..size, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} Yes\r\nETag: \"{size}\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n{more}\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        part.len()
    );
    let mut answer = head.into_bytes();
    if method != "HEAD" {
        answer.extend_from_slice(&bytes[part]);
    }
    answer
}
