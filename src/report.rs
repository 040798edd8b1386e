//! The pure reporter: state to check runs, deployments and messages.
