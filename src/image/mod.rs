//! Images: Dockerfile and context, build, push, digest.
