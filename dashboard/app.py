"""The dashboard's entry point: `hkdbench dashboard` runs it under Streamlit. Every page is a file in `views/`."""

import streamlit as st

from dashboard import navigation, options
from dashboard.data import store

st.set_page_config(page_title="hkdbench", page_icon=store.icon(), layout="wide")
if st.context.theme.type == "dark":  # otherwise a selected value is white on light blue, which is hard to read
    st.html("<style>[data-testid='stMultiSelectTagsContainer'] [data-tag] * { color: #0e1116 !important }</style>")
with store.show_user_errors():
    options.load_plugins()
    navigation.navigate().run()
