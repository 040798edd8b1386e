//! Target `docker`: slots as labelled containers of one engine, behind the agent.
