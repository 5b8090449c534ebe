//! `cronclave leave`: asks a server to leave its cluster.

use std::time::Duration;

use clap::Args;

use crate::cli::{complain, say};
use crate::shell::config::HTTP_PORT;
use crate::shell::exit::ExitError;

/// How long a server may take to hand over and to leave.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most characters of an answer that are shown.
const ANSWER_LEN_MAX: usize = 4_000;

/// The flags of `cronclave leave`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LeaveArgs {
    /// Where the server that is to leave answers HTTP
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    http_addr: String,
    /// Of Dkron; this asks by HTTP
    #[arg(long, value_name = "ADDR", hide_short_help = true)]
    rpc_addr: Option<String>,
}

/// Asks, and prints the answer.
pub(crate) fn run(args: &LeaveArgs) -> Result<(), ExitError> {
    if args.rpc_addr.is_some() {
        let text = "warning: rpc-addr is ignored, leave asks by HTTP: see --http-addr\n";
        complain(text);
    }
    let url = url(&args.http_addr)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|cause| ExitError::Environment(format!("cannot start the runtime: {cause}")))?;
    say(&runtime.block_on(ask(&url))?);
    Ok(())
}

async fn ask(url: &str) -> Result<String, ExitError> {
    let fail = |cause: reqwest::Error| {
        let innermost = innermost(&cause);
        ExitError::Environment(format!("no answer from {url}: {innermost}"))
    };
    // An agent on this machine is not to be sought through a proxy.
    let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    let client = client.timeout(ANSWER_TIMEOUT).build().map_err(fail)?;
    let response = client.post(url).send().await.map_err(fail)?;
    let status = response.status();
    let text = response.text().await.map_err(fail)?;
    let text: String = text.trim().chars().take(ANSWER_LEN_MAX).collect();
    if !status.is_success() {
        return Err(ExitError::Environment(format!("{url} answered {status}: {text}")));
    }
    Ok(format!("{text}\n"))
}

/// The cause behind all wrappers, which is what an operator can act on.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The address of the request: `http://` and the port may be left out, and so may the host.
fn url(addr: &str) -> Result<String, ExitError> {
    let bare = addr.trim();
    let text = if bare.contains("://") { bare.to_owned() } else { format!("http://{bare}") };
    let wrong = || {
        let right = "http://host:port, such as http://127.0.0.1:8080";
        ExitError::Usage(format!("http-addr: \"{addr}\" is not valid; right is {right}"))
    };
    let text = text.replacen("://:", "://127.0.0.1:", 1);
    let mut url = reqwest::Url::parse(&text).map_err(|_| wrong())?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(wrong());
    }
    if !bare.contains("://") && url.port().is_none() && !bare.trim_end_matches('/').ends_with(":80")
    {
        url.set_port(Some(HTTP_PORT)).map_err(|()| wrong())?;
    }
    url.set_path("/v1/leave");
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_may_be_short() {
        for (addr, right) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/leave"),
            ("http://alpha/", "http://alpha/v1/leave"),
            ("alpha:99", "http://alpha:99/v1/leave"),
            ("alpha", "http://alpha:8080/v1/leave"),
            (":8081", "http://127.0.0.1:8081/v1/leave"),
            ("[::1]:8080", "http://[::1]:8080/v1/leave"),
        ] {
            assert_eq!(url(addr).unwrap(), right, "{addr}");
        }
        for addr in ["", "https://alpha", "http://", "a b"] {
            assert_eq!(url(addr).unwrap_err().code(), 2, "{addr}");
        }
    }
}
