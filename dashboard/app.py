"""The dashboard's entry point: `hkdbench dashboard` runs it under Streamlit. Every page is a file in `views/`."""

import streamlit as st

from dashboard import pages, started, stores

st.set_page_config(page_title="hkdbench", page_icon=stores.icon(), layout="wide")
with stores.mistakes_told():
    started.load_plugins()
    pages.navigate().run()
