"""Challenging: sampling, verification, watermark claims, juries, the ``challenge`` and ``arena`` commands, the demo.

- :mod:`challenge.verify` - the numbered procedure; :mod:`challenge.verdict` - what it says
- :mod:`challenge.sampling` - which segments, and what a sample can miss; :mod:`challenge.plan` - whether that deters
- :mod:`challenge.states`, :mod:`challenge.segments`, :mod:`challenge.tolerance` - blobs checked, segments replayed, and
  single steps compared on a machine of another class; :mod:`challenge.executors` - where segments are replayed
- :mod:`challenge.inspect` - a proof shown without running it
- :mod:`challenge.claims` - watermark claims tied to an anchored state; :mod:`challenge.onchain` - what the chain knows
- :mod:`challenge.bundle`, :mod:`challenge.dispute` - proofs served, openings answered; :mod:`challenge.blocks` - single
  blocks of states opened; :mod:`challenge.evidence` - what is charged, and what code decides;
  :mod:`challenge.charges`, :mod:`challenge.ballots` - kept by the journal until they are shown
- :mod:`challenge.doctor` - why an honest run of a program would not replay
- :mod:`challenge.cli`, :mod:`challenge.case_cli`, :mod:`challenge.arena_cli` - the commands
- :mod:`challenge.demo` - the whole story
"""
