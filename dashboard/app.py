"""The dashboard's entry point: `hkdbench dashboard` runs it under Streamlit. Every page is a file in `views/`."""

import streamlit as st

from dashboard import navigation, options
from dashboard.data import store

st.set_page_config(page_title="hkdbench", page_icon=store.icon(), layout="wide")
if st.context.theme.type == "dark":  # a chosen value is white on the theme's light blue otherwise: too faint
    st.html("<style>[data-testid='stMultiSelectTagsContainer'] [data-tag] * { color: #0e1116 !important }</style>")
with store.mistakes_told():
    options.load_plugins()
    navigation.navigate().run()
