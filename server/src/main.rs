//! The `basalt` binary: reads the command line, and says why when it cannot do as asked.

use std::io::{self, Write};
use std::process::ExitCode;

use basalt_server::cli::{Cli, Command, Global, Server};
use basalt_server::config::Settings;
use basalt_server::environment::Environment;
use basalt_server::refusal::Refusal;
use basalt_server::{inspect, logging, start};

/// What one core frees was often taken by another (messages, records), and in all sizes: the system's
/// allocator spends a sixth of a small GET on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            report(&refusal, cli.global.json);
            refusal.exit_code()
        }
    }
}

fn run(cli: &Cli) -> Result<(), Refusal> {
    let environment = Environment::load(std::env::vars_os());
    let filter = environment.as_ref().ok().and_then(|environment| environment.get("LOG"));
    logging::start(cli.global.json, filter)?;
    match &cli.command {
        Command::Server(server) => serve(server, &cli.global, &environment?),
        Command::Inspect(inspect) => inspect::run(inspect),
    }
}

fn serve(server: &Server, global: &Global, environment: &Environment) -> Result<(), Refusal> {
    let working_directory = std::env::current_dir().map_err(|error| {
        let remedy = "start it in a directory that exists";
        Refusal::machine("the working directory cannot be found", error.to_string(), remedy)
    })?;
    let settings = Settings::decide(server, global, environment, &working_directory)?;
    start::serve(start::prepare(settings)?)
}

fn report(refusal: &Refusal, json: bool) {
    if json {
        tracing::error!(cause = refusal.cause, remedy = refusal.remedy, "{}", refusal.what);
    } else {
        // There is nowhere left to report a closed standard error to.
        let _ = writeln!(io::stderr().lock(), "{refusal}");
    }
}
