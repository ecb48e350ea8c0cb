//! Messages between agents: topics, direct lines and broadcasts, in memory or on NATS.
