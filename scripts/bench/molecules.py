"""What `bench` measures of molecules: atom-steps of inferred losses and of Lennard-Jones."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from invariantzoo.bench.measure import Case, Work

XTB = "GFN1-xTB, tblite through ASE"
UNIT = "atom-steps/s"


def cases() -> Iterator[Case]:
    """Losses of water beside quantum chemistry and a classical force field; Lennard-Jones."""
    for precision in ("float64", "float32"):
        yield Case(
            f"angular loss, 64 waters, {precision}",
            functools.partial(water, "water-angular", precision=precision),
            XTB,
            xtb,
            ("tblite", "ase"),
            at_least=1500,
            unit=UNIT,
            slow=True,
        )
    yield Case(
        "network loss, 64 waters",
        functools.partial(water, "water-best"),
        unit=UNIT,
        slow=True,
        turns=5,
    )
    yield Case(
        "pair loss, 64 waters",
        functools.partial(water, "water-pair", steps=200),
        "OpenMM CPU, flexible TIP3P with PME",
        openmm_water,
        ("openmm",),
        at_least=3,
        unit=UNIT,
    )
    for copies in (6, 12):
        atoms = f"{4 * copies**3:,}"
        yield Case(
            f"Lennard-Jones, {atoms} atoms",
            functools.partial(lennard_jones, copies),
            "OpenMM CPU",
            functools.partial(openmm_lennard_jones, copies),
            ("openmm",),
            at_least=1.4,
            unit=UNIT,
        )
    yield Case(
        "Lennard-Jones, 864 atoms",
        functools.partial(lennard_jones, 6),
        "ASE",
        functools.partial(ase_lennard_jones, 6),
        ("ase",),
        at_least=60,
        unit=UNIT,
    )
    yield Case(
        "angular loss, 64 replicas at once",
        functools.partial(water, "water-angular", worlds=64, steps=1),
        "one after another",
        functools.partial(water, "water-angular", steps=10),
        at_least=1,
        unit=UNIT,
    )
    alone = functools.partial(water, "water-angular", worlds=64, steps=4)
    yield Case(
        "angular loss, 64 replicas, two threads, wall",
        functools.partial(water, "water-angular", worlds=64, steps=4, threads=2),
        "one thread, wall",
        alone,
        at_least=1.8,
        unit=UNIT,
        slow=True,
        wall=True,
        turns=5,
    )
    yield Case(
        "the same in two processes: what the machine can give",
        two_processes,
        "one thread, wall",
        alone,
        unit=UNIT,
        slow=True,
        wall=True,
        turns=5,
    )


def water(
    model: str,
    *,
    worlds: int = 1,
    steps: int = 20,
    precision: str = "float64",
    threads: int = 1,
) -> Work:
    """Constant energy at 0.5 fs from the frame that comes with the model, begun anew each call."""
    from invariantzoo.envs.molecules.files import Sample, load_model
    from invariantzoo.envs.molecules.molecular_dynamics import advance, start_md
    from invariantzoo.training.molecules.simulate import Plan, World, draw_velocity

    saved = load_model(model)
    sample: Any = saved.sample
    assert isinstance(sample, Sample)
    plan = Plan(330.0, "none", 100.0, 0.5, steps, 100.0, 0, worlds, precision)
    world = World(saved, sample, plan, threads)
    start = np.repeat(sample.position[None], worlds, 0), draw_velocity(sample, plan)

    def work() -> int:
        world.forces.forget()
        bodies = start_md(*start, world.forces)
        advance(bodies, world.forces, world.mass, plan.dt, steps, freedom=world.freedom)
        return worlds * len(world.numbers) * (steps + 1)

    return work


def two_processes() -> Work:
    """Half of 64 replicas in each of two processes that know nothing of each other."""
    from multiprocessing import get_context

    context = get_context("spawn")
    pipes = []
    for _ in range(2):
        here, there = context.Pipe()
        context.Process(target=_half, args=(there,), daemon=True).start()
        pipes.append(here)

    def work() -> int:
        for pipe in pipes:
            pipe.send(None)
        return sum(pipe.recv() for pipe in pipes)

    return work


def _half(pipe: Any) -> None:
    work = water("water-angular", worlds=32, steps=4)
    while True:
        pipe.recv()
        pipe.send(work())


def xtb() -> Work:
    """Energy and forces of one frame of 64 waters by GFN1-xTB: what a step of dynamics costs."""
    from ase import Atoms
    from tblite.ase import TBLite

    from invariantzoo.envs.molecules.files import load_model

    sample: Any = load_model("water-angular").sample
    atoms = Atoms(sample.numbers, sample.position, cell=sample.cell, pbc=True)
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    atoms.get_forces()  # the first has no charges to begin with
    rng = np.random.default_rng(0)

    def work() -> int:
        atoms.positions += rng.normal(0, 0.003, atoms.positions.shape)
        atoms.get_forces()
        return len(atoms)

    return work


def openmm_water() -> Work:
    """Flexible TIP3P with particle-mesh Ewald, 64 waters, 0.5 fs, one thread."""
    from openmm import app, unit

    from invariantzoo.envs.molecules.files import load_model

    sample: Any = load_model("water-angular").sample
    topology = app.Topology()
    chain = topology.addChain()
    order = []
    for oxygen in np.flatnonzero(sample.numbers == 8):
        hydrogens = np.flatnonzero(sample.numbers == 1)[sample.owner == oxygen]
        residue = topology.addResidue("HOH", chain)
        names = ("O", "H1", "H2")
        elements = (app.element.oxygen, app.element.hydrogen, app.element.hydrogen)
        atoms = [topology.addAtom(n, e, residue) for n, e in zip(names, elements, strict=True)]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        order += [oxygen, *hydrogens]
    length = sample.cell[0, 0] / 10
    topology.setPeriodicBoxVectors(np.diag([length] * 3) * unit.nanometer)
    field = app.ForceField("tip3p.xml")
    system = field.createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.6 * unit.nanometer,
        rigidWater=False,
        constraints=None,
    )
    return _openmm(system, sample.position[order] / 10, 0.5e-3, len(order))


def lennard_jones(copies: int) -> Work:
    """Constant energy at density 0.8442, cutoff 2.5, step 0.005, from a crystal at T = 1.44."""
    from invariantzoo.envs.core.physics.integrators import REDUCED
    from invariantzoo.envs.molecules.lennard_jones import LennardJonesForces
    from invariantzoo.envs.molecules.molecular_dynamics import advance, maxwell, start_md

    x, cell = crystal(copies)
    mass = np.ones(len(x))
    forces = LennardJonesForces(cell[None], len(x))
    v = maxwell(np.random.default_rng(0), 1, mass, 1.44, REDUCED)
    bodies = start_md(x[None], v, forces)

    def go(steps: int) -> int:
        advance(bodies, forces, mass, 0.005, steps, freedom=3 * len(x) - 3, units=REDUCED)
        return steps * len(x)

    go(300)  # melts
    return lambda: go(20)


def crystal(copies: int) -> tuple[np.ndarray, np.ndarray]:
    """A face-centred cubic crystal of density 0.8442 and its cell, in units of sigma."""
    from invariantzoo.envs.core.physics.cell import replicate

    edge = (4 / 0.8442) ** (1 / 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * edge
    return replicate(basis, edge * np.eye(3), (copies,) * 3)


def openmm_lennard_jones(copies: int) -> Work:
    """The same with OpenMM's CPU platform, one thread; a length of 1 nm stands for sigma."""
    import openmm

    x, cell = crystal(copies)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*cell.tolist())
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(2.5)
    force.setUseDispersionCorrection(False)
    for _ in x:
        system.addParticle(1.0)
        force.addParticle(0.0, 1.0, 1.0)
    system.addForce(force)
    return _openmm(system, x, 0.005, len(x), melt=300, kelvin=1.44 / 8.31446261815324e-3)


def _openmm(
    system: Any, position: np.ndarray, dt: float, atoms: int, melt: int = 0, kelvin: float = 330.0
) -> Work:
    import openmm

    integrator = openmm.VerletIntegrator(dt)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    context.setPositions(position)
    if not melt:
        openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(kelvin, 0)
    integrator.step(max(melt, 10))

    def work() -> int:
        integrator.step(50)
        context.getState(getEnergy=True)  # waits for what was asked
        return 50 * atoms

    return work


def ase_lennard_jones(copies: int) -> Work:
    """The same with ASE's LennardJones and VelocityVerlet."""
    from ase import Atoms, units
    from ase.calculators.lj import LennardJones
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
    from ase.md.verlet import VelocityVerlet

    x, cell = crystal(copies)
    atoms = Atoms(numbers=[1] * len(x), positions=x, cell=cell, pbc=True, masses=[1.0] * len(x))
    atoms.calc = LennardJones(sigma=1.0, epsilon=1.0, rc=2.5, ro=2.5, smooth=False)
    MaxwellBoltzmannDistribution(atoms, temperature_K=1.44 / units.kB, rng=np.random.default_rng(0))
    dynamics = VelocityVerlet(atoms, timestep=0.005)
    dynamics.run(1)

    def work() -> int:
        dynamics.run(2)
        return 2 * len(x)

    return work
