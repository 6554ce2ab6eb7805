"""Whisper's numbers for sound, each in one place."""

SAMPLE_RATE = 16_000  # Hz; every waveform of the product has this rate
N_FFT = 400  # samples of one window: 25 ms
HOP = 160  # samples between mel frames of the published models: 10 ms
STRIDE = 2  # mel frames per encoder frame (the second convolution)
WINDOW_SECONDS = 30.0  # what a published model hears at once
TIMESTAMP_STEP = 0.02  # seconds between two timestamp tokens, and between two encoder frames of the published models
FRAME_SECONDS = 0.02  # over which loudness is measured, to tell speech from silence
