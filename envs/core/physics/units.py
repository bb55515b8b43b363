"""Units of the molecular systems (Angstrom, fs, eV, amu) and what converts others to them.

CODATA 2018 values. Lennard-Jones systems use reduced units (sigma = epsilon = m = k_B = 1).
"""

from __future__ import annotations

ACCELERATION = 9.648533212e-3  # Angstrom/fs^2 of 1 eV/Angstrom on 1 amu
KINETIC = 1 / ACCELERATION  # 103.6426965 eV of 1 amu Angstrom^2/fs^2
BOLTZMANN = 8.617333262e-5  # eV/K
HARTREE = 27.211386246  # eV
BOHR = 0.529177211  # Angstrom
HARTREE_PER_BOHR = 51.4220675  # eV/Angstrom
ATOMIC_VELOCITY = 21.8769126  # Angstrom/fs of 1 bohr per atomic unit of time
WAVENUMBER = 2.99792458e-5  # 1/fs of 1/cm

SYMBOLS = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi"
).split()
_WEIGHTS = (
    "0 1.008 4.0026 6.94 9.0122 10.81 12.011 14.007 15.999 18.998 20.180 22.990 24.305 26.982 "
    "28.085 30.974 32.06 35.45 39.95 39.098 40.078 44.956 47.867 50.942 51.996 54.938 55.845 "
    "58.933 58.693 63.546 65.38 69.723 72.630 74.922 78.971 79.904 83.798 85.468 87.62 88.906 "
    "91.224 92.906 95.95 97 101.07 102.91 106.42 107.87 112.41 114.82 118.71 121.76 127.60 126.90 "
    "131.29 132.91 137.33 138.91 140.12 140.91 144.24 145 150.36 151.96 157.25 158.93 162.50 "
    "164.93 167.26 168.93 173.05 174.97 178.49 180.95 183.84 186.21 190.23 192.22 195.08 196.97 "
    "200.59 204.38 207.2 208.98"
).split()
ATOMIC_WEIGHTS = tuple(map(float, _WEIGHTS))  # amu, by atomic number


def atomic_number(symbol: str) -> int:
    """The number of an element; ValueError for what is none of the first 83."""
    if symbol.capitalize() not in SYMBOLS[1:]:
        raise ValueError(f"species {symbol!r} is no element up to Bi")
    return SYMBOLS.index(symbol.capitalize())
