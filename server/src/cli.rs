//! The command line: `basalt server` and `basalt inspect`.
//!
//! Flags and their meaning are MinIO's where both have them. What is only accepted, so that an old
//! command line works, says so when the server starts; what would silently mean something else is
//! refused.

use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::environment::VARIABLES;

/// Where the help text is broken, so that it reads the same everywhere.
const HELP_COLUMNS: usize = 100;

#[derive(Parser, Debug)]
#[command(
    name = "basalt",
    version,
    about = "An S3-compatible, erasure-coded object store",
    disable_help_subcommand = true,
    max_term_width = HELP_COLUMNS
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Flags that stand before or after the subcommand.
#[derive(Args, Clone, Default, Debug)]
pub struct Global {
    /// Log as JSON, one object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no start-up information
    #[arg(long, global = true)]
    pub quiet: bool,
    /// Leave addresses and credentials out of the start-up information
    #[arg(long, global = true)]
    pub anonymous: bool,
    /// Directory of public.crt and private.key; where they are, HTTPS is served in place of HTTP.
    /// Further pairs stand in subdirectories [default: ~/.minio/certs]
    #[arg(long, short = 'S', global = true, value_name = "DIR")]
    pub certs_dir: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve objects from the drives of this node
    Server(Server),
    /// Show what a stopped drive holds
    Inspect(Inspect),
}

#[derive(Args, Clone, Default, Debug)]
pub struct Server {
    /// Directories, one for each drive; of several nodes URLs, the same on each of them. {1...4}
    /// stands for 1 to 4; each argument with such a range is a pool of its own, and arguments
    /// without ranges are one pool together
    #[arg(value_name = "DIR")]
    pub drives: Vec<String>,
    /// Where clients connect [default: :9000]
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Where browsers connect; accepted, but this release has no console yet
    #[arg(long, value_name = "HOST:PORT")]
    pub console_address: Option<String>,
    /// Where other nodes connect, if not where clients do; all nodes need the same port for it
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_address: Option<String>,
    /// Accept drives on file systems that are not fit for data (tmpfs, overlay, NFS, FUSE), for a
    /// trial
    #[arg(long)]
    pub allow_buffered: bool,
    /// Flags of [`WITHOUT_EFFECT`] that were given.
    #[arg(skip)]
    pub without_effect: Vec<&'static str>,
}

#[derive(Args, Clone, Debug)]
pub struct Inspect {
    /// The drive's directory
    #[arg(value_name = "DRIVE")]
    pub drive: PathBuf,
    /// Only this object
    #[arg(long, value_name = "BUCKET/KEY")]
    pub key: Option<String>,
    /// Read everything and verify every checksum
    #[arg(long)]
    pub verify: bool,
}

/// MinIO's flags for tuning: accepted, with their value, and passed over.
const WITHOUT_EFFECT: [&str; 14] = [
    "conn-user-timeout",
    "crossdomain-xml",
    "dns-cache-ttl",
    "idle-timeout",
    "log-compress",
    "log-dir",
    "log-prefix",
    "log-size",
    "max-idle-conns-per-host",
    "memlimit",
    "read-header-timeout",
    "recv-buf-size",
    "send-buf-size",
    "shutdown-timeout",
];
/// Those of them that take no value.
const WITHOUT_EFFECT_SWITCHES: [&str; 1] = ["no-compat"];

impl Cli {
    /// Reads the command line. Errors of it, and `--help`, are clap's to print.
    pub fn read<I, T>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = command().try_get_matches_from(arguments)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let (Command::Server(server), Some(matches)) =
            (&mut cli.command, matches.subcommand_matches("server"))
        {
            server.without_effect = without_effect(matches);
        }
        Ok(cli)
    }
}

fn command() -> clap::Command {
    let hidden = |name: &'static str| clap::Arg::new(name).long(name).hide(true);
    Cli::command().mut_subcommand("server", |server| {
        server
            .after_help(server_notes())
            .args(WITHOUT_EFFECT.map(|name| hidden(name).num_args(1).value_name("VALUE")))
            .args(WITHOUT_EFFECT_SWITCHES.map(|name| hidden(name).action(clap::ArgAction::SetTrue)))
    })
}

fn without_effect(matches: &ArgMatches) -> Vec<&'static str> {
    let given = |name: &&'static str| {
        matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    };
    WITHOUT_EFFECT.into_iter().chain(WITHOUT_EFFECT_SWITCHES).filter(given).collect()
}

fn server_notes() -> String {
    let variables: String =
        VARIABLES.iter().map(|(name, meaning)| format!("  {name:<24} {meaning}\n")).collect();
    format!(
        "\
Examples:
  One drive:
    basalt server /mnt/data

  Four drives, one set; with the default parity any two may fail:
    basalt server /mnt/drive{{1...4}}

  Sixteen drives with parity 6:
    BASALT_STORAGE_CLASS_STANDARD=EC:6 basalt server /mnt/drive{{1...16}}

  Four nodes with four drives each: this line on every one of them, with the same root user
    basalt server http://node{{1...4}}:9000/mnt/drive{{1...4}}

  With MinIO's unit and environment file (/etc/default/minio), unchanged:
    basalt server $MINIO_OPTS $MINIO_VOLUMES

  A trial in a container, where nothing is kept:
    basalt server --allow-buffered /tmp/data{{1...4}}

Environment (each as BASALT_NAME or MINIO_NAME; BASALT_ wins):
{variables}
MINIO_OPTS is for the unit file, which puts it on the command line; the server itself does not read
it. Without ROOT_USER and ROOT_PASSWORD the first start makes both and keeps them in the file
.basalt-root-NAME beside the first drive, where NAME is the name of its directory; several nodes
need to be given both.

Exit codes: 0 stopped as asked, 1 the machine is not as it has to be (a drive, a port, a file),
2 the command line or the environment is wrong."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(std::iter::once("basalt").chain(arguments.iter().copied()))
    }

    fn server(arguments: &[&str]) -> (Server, Global) {
        match read(arguments).unwrap() {
            Cli { command: Command::Server(server), global } => (server, global),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        command().debug_assert();
    }

    #[test]
    fn flags_stand_anywhere() {
        let (after, _) = server(&["server", "/data", "--address", ":9100"]);
        let (before, global) = server(&["--json", "server", "--address=:9100", "/data"]);
        assert_eq!(after.address, before.address);
        assert_eq!(after.drives, ["/data"]);
        assert!(global.json);
        let (_, global) = server(&["server", "-S", "/certs", "--quiet", "--anonymous", "/data"]);
        assert_eq!(global.certs_dir, Some("/certs".into()));
        assert!(global.quiet && global.anonymous && !global.json);
    }

    #[test]
    fn flags_without_effect_are_noticed() {
        let (given, _) = server(&["server", "--memlimit", "4GiB", "--no-compat", "/data"]);
        assert_eq!(given.without_effect, ["memlimit", "no-compat"]);
        assert_eq!(given.drives, ["/data"]);
        assert!(server(&["server", "/data"]).0.without_effect.is_empty());
    }

    #[test]
    fn unknown_flags_name_the_near_match() {
        let error = read(&["server", "--adress", ":9000", "/data"]).unwrap_err().to_string();
        assert!(error.contains("--adress") && error.contains("'--address'"), "{error}");
        assert!(read(&["server", "--ftp", "address=:8021", "/data"]).is_err());
        assert!(read(&["serve", "/data"]).unwrap_err().to_string().contains("server"));
    }

    #[test]
    fn inspect() {
        let Cli { command: Command::Inspect(inspect), .. } =
            read(&["inspect", "/mnt/d1", "--key", "photos/a/b.jpg", "--verify"]).unwrap()
        else {
            panic!("inspect");
        };
        assert_eq!(inspect.drive, PathBuf::from("/mnt/d1"));
        assert_eq!(inspect.key.as_deref(), Some("photos/a/b.jpg"));
        assert!(inspect.verify);
    }
}
