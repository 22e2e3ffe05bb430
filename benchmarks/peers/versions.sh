# What peers and fixtures are made from: sourced by benchmarks/peers/setup.sh and tests/setup.sh.
# llama.cpp comes inside the source package of llama-cpp-python on PyPI.
LLAMA_SDIST=llama_cpp_python-0.3.36
LLAMA_SDIST_REQUIREMENT=llama-cpp-python==0.3.36
LLAMA_SDIST_SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
# Names the archive's metadata to pip; builds nothing.
SCIKIT_BUILD_REQUIREMENT=scikit-build-core==1.1.2
