//! How good it is: verification, open-set identification, video scoring, calibration.
