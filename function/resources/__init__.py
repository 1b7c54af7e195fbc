"""One pure builder per composed kind: plain arguments in, a manifest out."""
