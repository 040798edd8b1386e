//! One build, through BuildKit where the engine has it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};

use bollard::{
    body_try_stream,
    errors::Error,
    models::SystemVersion,
    query_parameters::{BuildImageOptions, BuilderVersion},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::{
    ImageOrder, Images,
    base::{bases, full},
    context::{Context, Sent, small_text},
    error::{ImageError, RegistryProblem, cut},
    name::ImageName,
    output::Output,
    since,
};
use crate::{clock, domain::ids::Digest, infer::dockerfile::Dockerfile};

/// What BuildKit says before what is wrong.
const FRONTEND: &str = "failed to solve with frontend dockerfile.v0: failed to create LLB definition: ";

/// An image that the engine has.
pub(super) struct Built {
    pub dockerfile: String,
    pub size: u64,
    pub context: u64,
    pub on: BTreeMap<String, Digest>,
    pub bases: Duration,
    pub took: Duration,
}

impl Images {
    pub(super) async fn build(
        &self,
        order: &ImageOrder<'_>,
        name: &ImageName,
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Built, ImageError> {
        let plan = order.plan;
        let (file, text, generic) = match (&plan.dockerfile, &plan.generated) {
            (Some(file), _) => {
                super::context::inside(order.workspace, file)?;
                let text = small_text(order.workspace, &order.workspace.join(file), file)?;
                (file.clone(), text.unwrap_or_default(), "")
            }
            (None, Some(made)) => (made.name.clone(), made.text.clone(), made.ignore.as_str()),
            (None, None) => return Err(ImageError::NoDockerfile(plan.missing.clone())),
        };
        // What was inferred, and over it what is ordered.
        let mut args = plan.args.clone();
        args.extend(order.build_args.clone());
        let dockerfile = Dockerfile::read(&text, &args);
        let begun = clock::now();
        let bases = bases(&file, &dockerfile)?;
        let on = self.fetch_bases(&file, &bases, said).await?;
        let bases_took = since(begun);

        let begun = clock::now();
        let context =
            Context::open(order.workspace, &plan.context, plan.dockerfile.as_deref(), &text, generic, order.created)?;
        let shown = if plan.context.is_empty() { "the repository's root" } else { &plan.context };
        said(&format!("building {name} from {file}, with {shown} as context"));
        let version = self.api.version().await.map_err(|e| self.engine_failed("asking for its version", &e))?;
        let buildkit = has_buildkit(&version);
        let labels = [
            ("org.opencontainers.image.source", order.source.to_owned()),
            ("org.opencontainers.image.revision", order.commit.to_string()),
            ("org.opencontainers.image.created", order.created.to_string()),
        ];
        let options = BuildImageOptions {
            dockerfile: context.dockerfile.clone(),
            t: Some(name.to_string()),
            nocache: order.fresh,
            rm: true,
            forcerm: true,
            buildargs: Some(args.into_iter().collect()),
            labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            version: if buildkit { BuilderVersion::BuilderBuildKit } else { BuilderVersion::BuilderV1 },
            session: buildkit.then(|| uuid::Uuid::new_v4().simple().to_string()),
            ..BuildImageOptions::default()
        };
        let names: Vec<ImageName> = bases.into_iter().map(|b| b.name).collect();
        let (sent, output) = self.run(options, context, &names, said).await?;
        let image = match (output.image, &output.error) {
            (Some(image), None) => image,
            (_, Some(error)) => return Err(failed(&file, &dockerfile, error, output.step)),
            (None, None) => {
                let why = "it ended the build without an image".to_owned();
                return Err(ImageError::Engine { doing: "building the image".to_owned(), why });
            }
        };
        let inspected = self.api.inspect_image(&image).await;
        let inspected = inspected.map_err(|e| self.engine_failed("looking at the built image", &e))?;
        let size = inspected.size.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
        Ok(Built { dockerfile: file, on, size, context: sent.bytes, bases: bases_took, took: since(begun) })
    }

    async fn run(
        &self,
        options: BuildImageOptions,
        context: Context,
        bases: &[ImageName],
        said: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(Sent, Ended), ImageError> {
        let (to, mut from) = mpsc::channel::<Result<Bytes, io::Error>>(16);
        let sending = tokio::task::spawn_blocking(move || context.send(to));
        let body = futures_util::stream::poll_fn(move |cx| from.poll_recv(cx));
        let credentials: HashMap<_, _> = self.registries.for_build(bases);
        let mut output = Output::default();
        let mut broken = None;
        {
            let mut stream =
                std::pin::pin!(self.api.build_image(options, Some(credentials), Some(body_try_stream(body))));
            while let Some(message) = stream.next().await {
                match message {
                    Ok(info) => output.take(info, said),
                    Err(Error::DockerStreamError { error }) => output.error = Some(error),
                    // A Dockerfile that can't be read at all is told before the first line of output.
                    Err(Error::DockerResponseServerError { message, .. }) => output.error = Some(message),
                    Err(e) => broken = Some(e),
                }
            }
        }
        output.rest(said);
        // The stream is gone, and with it the listener: the sender ends.
        let sent = sending
            .await
            .map_err(|e| ImageError::Engine { doing: "sending the build context".to_owned(), why: e.to_string() })??;
        if let (Some(e), None) = (&broken, &output.error) {
            return Err(self.engine_failed("building the image", e));
        }
        let step = output.failed().map(|(name, tail)| (name.to_owned(), tail.to_vec()));
        Ok((sent, Ended { image: output.image.take(), error: output.error.take(), step }))
    }
}

struct Ended {
    image: Option<String>,
    error: Option<String>,
    step: Option<(String, Vec<String>)>,
}

/// BuildKit is in every Docker engine since 18.09 (API 1.39), except on Windows; other engines that speak the same API
/// do not have it.
fn has_buildkit(version: &SystemVersion) -> bool {
    let number = |text: &str| -> Option<(u32, u32)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let docker = version.components.as_ref().is_none_or(|all| all.iter().any(|c| c.name == "Engine"));
    let recent = version.api_version.as_deref().and_then(number).is_some_and(|v| v >= (1, 39));
    docker && recent && version.os.as_deref() != Some("windows")
}

/// What went wrong: the Dockerfile, a registry, or the engine.
fn failed(file: &str, dockerfile: &Dockerfile, error: &str, step: Option<(String, Vec<String>)>) -> ImageError {
    if full(error) {
        return ImageError::EngineFull(cut(error));
    }
    let (name, tail) = step.unwrap_or_default();
    let instruction = dockerfile.step(&name);
    let by_line = || {
        // "dockerfile parse error line 3: unknown instruction: RUNN", "Syntax error - …line 3".
        let rest = error.split_once("line ")?.1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    };
    let line = instruction.map(|i| i.line).or_else(by_line);
    let found = instruction.or_else(|| dockerfile.instructions.iter().find(|i| Some(i.line) == line));
    let text = found.map(|i| format!("{} {}", i.keyword, i.text).trim_end().to_owned()).unwrap_or_default();
    let fetching =
        name.contains("load metadata for") || name.contains("] FROM ") || name.contains("resolve image config");
    if fetching && let Some(problem) = RegistryProblem::understood("the registry", error) {
        return ImageError::Registry { doing: format!("fetching a base image of {file}"), problem };
    }
    let lost = ["context canceled", "transport is closing", "session", "error reading from server"];
    if found.is_none() && lost.iter().any(|l| error.contains(l)) {
        return ImageError::Engine { doing: "building the image".to_owned(), why: cut(error) };
    }
    let kind = found.map(|i| i.keyword.as_str()).unwrap_or_default();
    let mut why = match error.rsplit_once("exit code: ").or_else(|| error.rsplit_once("non-zero code: ")) {
        Some((_, code)) if kind == "RUN" && code.trim() == "137" => {
            "exit code 137: it was killed, as a rule because the memory was not enough".to_owned()
        }
        Some((_, code)) if kind == "RUN" => format!("exit code {}", cut(code)),
        _ => cut(error.strip_prefix(FRONTEND).unwrap_or(error)),
    };
    if matches!(kind, "COPY" | "ADD") && error.contains("not found") {
        why.push_str(". Does the `build` step make it there, and does .dockerignore leave it in?");
    }
    if !tail.is_empty() && kind == "RUN" {
        why = format!("{why}\n    {}", tail.join("\n    "));
    }
    ImageError::Dockerfile { file: file.to_owned(), line, text, why }
}
